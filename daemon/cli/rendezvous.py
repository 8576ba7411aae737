"""``rendezvous``: runs the place where peers find each other."""

import argparse
import os
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands

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
    arguments.add_server_address(parser, "0.0.0.0:5555")
    arguments.add_stun(parser)
    arguments.add_state_dir(
        parser, "where its key and its snapshot are kept (default: ~/.local/state/p2pd/rendezvous)"
    )
    arguments.add_log_level(parser)


def _rendezvous(options: argparse.Namespace) -> int:
    from daemon.host.logs import set_up_logging
    from daemon.host.state_paths import server_directory
    from daemon.rendezvous_server import RendezvousOptions, run_rendezvous

    set_up_logging(options.log_level, os.environ)
    return run_rendezvous(
        RendezvousOptions(
            listen=options.listen,
            state_dir=options.state_dir or server_directory(os.environ, "rendezvous"),
            advertise=options.advertise,
            stun_port=options.stun_port,
            stun_second_address=options.stun_second_address,
        )
    )
