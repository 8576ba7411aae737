"""``serve``, ``rendezvous`` and ``relay``: run what a swarm needs of a public host."""

import argparse
import functools
import os
from typing import TYPE_CHECKING

from daemon.cli import arguments
from daemon.cli.settings.names import make_configurable

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.cli.settings.layers import Settled
    from protocol.uri import HostPort

SERVE = """\
Run rendezvous, STUN and relay in one process, in the foreground: all that swarms need of a host
that everybody can reach, small as it may be.

Its URI, p2p://KEY@HOST:PORT, is printed when it is ready; 'p2pd create --rendezvous URI' takes it,
and the relay comes with it. Rendezvous and relay share port and key. With --also-443 they listen on
port 443 too, for peers whose networks let nothing else out. STUN has two ports of its own, over UDP
and TCP, and then port 80 too where that is free.
"""

RENDEZVOUS = """\
Run a rendezvous in the foreground: where the peers of any number of swarms find each other. It
never sees a model, and peers do not trust it with who may take part.

Beside it, on the same host, it answers STUN over UDP and TCP, by which peers learn what their
routers do to them and connect to each other through these. A firewall in front has to let these two
ports in too.

Its URI, p2p://KEY@HOST:PORT, is printed when it is ready; 'p2pd create' takes it. The key is made
at the first start and kept in the state directory, so the URI stays the same.
"""

RELAY = """\
Run a relay in the foreground. It carries the data of peers, of any number of swarms, whose networks
let nothing else through. The data are encrypted from peer to peer; the relay sees who talks to whom
and how much, and nothing else.

Its URI, p2p://KEY@HOST:PORT, is printed when it is ready; 'p2pd create --relay URI' takes it. The
key is made at the first start and kept in the state directory, so the URI stays the same.
"""


def add_commands(commands: "Commands") -> None:
    """The three commands' parsers."""
    _add_rendezvous(commands)
    _add_relay(commands)
    _add_serve(commands)


def _add_rendezvous(commands: "Commands") -> None:
    parser = arguments.add_command(
        commands,
        "rendezvous",
        _run,
        summary="run the place where peers find each other",
        description=RENDEZVOUS,
        examples="  p2pd rendezvous --listen 127.0.0.1:5555        for peers on this machine\n"
        "  p2pd rendezvous --listen 0.0.0.0:5555 --advertise swarm.example.org:5555",
    )
    arguments.add_server_address(parser, "0.0.0.0:5555")
    arguments.add_stun(parser)
    _add_store(parser)
    _add_rest(parser, "where its key and its snapshot are kept", "rendezvous")


def _add_relay(commands: "Commands") -> None:
    parser = arguments.add_command(
        commands,
        "relay",
        _run,
        summary="run a relay for peers that find no other path",
        description=RELAY,
        examples="  p2pd relay --listen 0.0.0.0:5600\n"
        "  p2pd relay --advertise relay.example.org:5600 --peer-rate 20",
    )
    arguments.add_server_address(parser, "0.0.0.0:5600")
    arguments.add_relay_limits(parser)
    _add_rest(parser, "where its key is kept", "relay")


def _add_serve(commands: "Commands") -> None:
    parser = arguments.add_command(
        commands,
        "serve",
        _run,
        summary="run rendezvous, STUN and relay in one",
        description=SERVE,
        examples="  p2pd serve --listen 0.0.0.0:5555 --also-443\n"
        "  p2pd serve --advertise swarm.example.org:5555 --peer-rate 20",
    )
    arguments.add_server_address(parser, "0.0.0.0:5555")
    parser.add_argument(
        "--also-443",
        action="store_true",
        help="listen on port 443 too, for sites that let nothing else out (STUN: on port 80)",
    )
    arguments.add_stun(parser)
    _add_store(parser)
    arguments.add_relay_limits(parser)
    _add_rest(parser, "where its key and its snapshot are kept", "serve")


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        default="",
        metavar="URL",
        help="keep the directory in Valkey or Redis, redis://HOST:PORT or unix:///SOCKET, so that"
        " several rendezvous share it (default: in a file of its own)",
    )


def _add_rest(parser: argparse.ArgumentParser, kept: str, role: str) -> None:
    arguments.add_state_dir(parser, f"{kept} (default: ~/.local/state/p2pd/{role})")
    parser.add_argument(
        "--metrics",
        type=arguments.config(arguments.listen_address),
        metavar="HOST:PORT",
        help="answer http://HOST:PORT/metrics for Prometheus; it names no peer (default: nowhere)",
    )
    parser.add_argument(
        "--web",
        type=arguments.config(_page_address),
        metavar="HOST:PORT",
        help="serve a page there that shows how the server does, on this machine alone; 'p2pd web"
        " --state-dir DIR' prints its address (default: nowhere)",
    )
    arguments.add_log_level(parser)
    parser.set_defaults(role=role)
    make_configurable(parser, role)


def _page_address(text: str) -> "HostPort":
    from daemon.web.loopback import check_loopback

    return check_loopback(arguments.listen_address(text))


def _run(options: argparse.Namespace) -> int:
    from daemon.cli.settings.layers import settle
    from daemon.host.logs import set_up_logging
    from daemon.host.state_paths import server_directory
    from daemon.server import WEB_PORT, WEB_STUN_PORT, ServerOptions, StunOptions, run
    from protocol.uri import HostPort
    from rendezvous.server.limits import RegistryLimits

    settled = settle(options, os.environ)
    reread = functools.partial(_read_again, options, settled)
    options = settled.options
    set_up_logging(options.log_level, os.environ)
    role = options.role
    has_relay, has_rendezvous = role != "rendezvous", role != "relay"
    also_443 = role == "serve" and options.also_443
    more = also_443 and options.listen.port != WEB_PORT
    return run(
        ServerOptions(
            listen=options.listen,
            state_dir=options.state_dir or server_directory(os.environ, role),
            rendezvous=RegistryLimits() if has_rendezvous else None,
            relay=arguments.relay_limits(options) if has_relay else None,
            advertise=options.advertise,
            also_listen=(HostPort(options.listen.host, WEB_PORT),) if more else (),
            stun=StunOptions(
                options.stun_port, options.stun_second_address, WEB_STUN_PORT if also_443 else None
            )
            if has_rendezvous
            else StunOptions(),
            store=options.store if has_rendezvous else "",
            metrics=options.metrics,
            web=options.web,
        ),
        reread,
    )


def _read_again(parsed: argparse.Namespace, before: "Settled") -> None:
    """What SIGHUP asks for: the log level counts at once."""
    import logging

    from daemon.cli.settings.layers import settle
    from daemon.host.logs import set_log_level
    from protocol.errors import ConfigError

    log = logging.getLogger("p2pd.server")
    try:
        now = settle(parsed, os.environ)
    except ConfigError as error:
        log.warning("settings stay as they are: %s", error)
        return
    set_log_level(now.options.log_level)
    later = [name for name in before.differing(now) if name != "log-level"]
    log.info(
        "settings read again%s",
        f"; after a restart these count: {', '.join(later)}" if later else "",
    )
