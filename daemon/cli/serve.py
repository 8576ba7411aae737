"""``serve``: runs all that a swarm needs of a public host."""

import argparse
import os
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands

DESCRIPTION = """\
Run rendezvous, STUN and relay in one process, in the foreground: all that swarms need of a host
that everybody can reach, small as it may be.

Its URI, p2p://KEY@HOST:PORT, is printed when it is ready; 'p2pd create --rendezvous URI' takes it,
and the relay comes with it. Rendezvous and relay share port and key. With --also-443 they listen on
port 443 too, for peers whose networks let nothing else out. STUN has two ports of its own, over UDP
and TCP, and then port 80 too where that is free.
"""


def add_commands(commands: "Commands") -> None:
    """The group's parser."""
    parser = arguments.add_command(
        commands,
        "serve",
        _serve,
        summary="run rendezvous, STUN and relay in one",
        description=DESCRIPTION,
        examples="  p2pd serve --listen 0.0.0.0:5555 --also-443\n"
        "  p2pd serve --listen 0.0.0.0:5555 --advertise swarm.example.org:5555 --peer-rate 20",
    )
    arguments.add_server_address(parser, "0.0.0.0:5555")
    parser.add_argument(
        "--also-443",
        action="store_true",
        help="listen on port 443 too, for sites that let nothing else out (STUN: on port 80)",
    )
    arguments.add_stun(parser)
    arguments.add_relay_limits(parser)
    arguments.add_state_dir(
        parser, "where its key and its snapshot are kept (default: ~/.local/state/p2pd/serve)"
    )
    arguments.add_log_level(parser)


def _serve(options: argparse.Namespace) -> int:
    from daemon.host.logs import set_up_logging
    from daemon.host.state_paths import server_directory
    from daemon.server import WEB_PORT, WEB_STUN_PORT, ServeOptions, run_serve

    set_up_logging(options.log_level, os.environ)
    return run_serve(
        ServeOptions(
            listen=options.listen,
            state_dir=options.state_dir or server_directory(os.environ, "serve"),
            limits=arguments.relay_limits(options),
            advertise=options.advertise,
            also_ports=(WEB_PORT,) if options.also_443 and options.listen.port != WEB_PORT else (),
            stun_port=options.stun_port,
            stun_second_address=options.stun_second_address,
            stun_also_port=WEB_STUN_PORT if options.also_443 else None,
        )
    )
