"""``rendezvous``: runs the place where peers find each other."""

import argparse
import os
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from protocol.uri import HostPort

DESCRIPTION = """\
Run a rendezvous in the foreground: where the peers of any number of swarms find each other. It
never sees a model, and peers do not trust it with who may take part.

Beside it, on the same host, it answers STUN over UDP and TCP, by which peers learn what their
routers do to them and connect to each other through these. A firewall in front has to let these two
ports in too.

Its URI, p2p://KEY@HOST:PORT, is printed when it is ready; 'p2pd create' takes it. The key is made
at the first start and kept in the state directory, so the URI stays the same.
"""


def add_commands(commands: "Commands") -> None:
    """The group's parser."""
    parser = arguments.add_command(
        commands,
        "rendezvous",
        _rendezvous,
        summary="run the place where peers find each other",
        description=DESCRIPTION,
        examples="  p2pd rendezvous --listen 127.0.0.1:5555        for peers on this machine\n"
        "  p2pd rendezvous --listen 0.0.0.0:5555 --advertise swarm.example.org:5555",
    )
    parser.add_argument(
        "--listen",
        type=arguments.config(_listen),
        default="0.0.0.0:5555",
        metavar="HOST:PORT",
        help="where peers connect; port 0 picks one (default: 0.0.0.0:5555)",
    )
    parser.add_argument(
        "--advertise",
        type=arguments.config(_address),
        metavar="HOST:PORT",
        help="the address to print in the URI, if it is not the one listened on",
    )
    parser.add_argument(
        "--stun-port",
        type=arguments.whole_number(1, 65534),
        metavar="PORT",
        help="STUN answers on this port and the next one (default: the two after the one listened"
        " on)",
    )
    parser.add_argument(
        "--stun-second-address",
        type=arguments.config(_ip_address),
        metavar="IP",
        help="another address of this host: with two, peers can find out all that their routers do",
    )
    arguments.add_state_dir(
        parser, "where its key and its snapshot are kept (default: ~/.local/state/p2pd/rendezvous)"
    )
    arguments.add_log_level(parser)


def _listen(text: str) -> "HostPort":
    from protocol.uri import HostPort

    return HostPort.parse(text, any_port=True)


def _address(text: str) -> "HostPort":
    from protocol.uri import HostPort

    return HostPort.parse(text)


def _ip_address(text: str) -> str:
    import ipaddress

    from protocol.errors import ConfigError

    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _rendezvous(options: argparse.Namespace) -> int:
    from daemon.logs import set_up_logging
    from daemon.rendezvous_main import RendezvousOptions, run_rendezvous
    from daemon.state_paths import rendezvous_directory

    set_up_logging(options.log_level, os.environ)
    return run_rendezvous(
        RendezvousOptions(
            listen=options.listen,
            state_dir=options.state_dir or rendezvous_directory(os.environ),
            advertise=options.advertise,
            stun_port=options.stun_port,
            stun_second_address=options.stun_second_address,
        )
    )
