"""``relay``: runs the path of last resort."""

import argparse
import os
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands

DESCRIPTION = """\
Run a relay in the foreground: it passes on what peers of any number of swarms send each other when
their networks let nothing else through. What passes is encrypted from peer to peer; the relay sees
who talks to whom and how much, and nothing else.

Its URI, p2p://KEY@HOST:PORT, is printed when it is ready; 'p2pd create --relay URI' takes it. The
key is made at the first start and kept in the state directory, so the URI stays the same.
"""


def add_commands(commands: "Commands") -> None:
    """The group's parser."""
    parser = arguments.add_command(
        commands,
        "relay",
        _relay,
        summary="run a relay for peers that find no other path",
        description=DESCRIPTION,
        examples="  p2pd relay --listen 0.0.0.0:5600\n"
        "  p2pd relay --listen 0.0.0.0:443 --advertise relay.example.org:443 --peer-rate 20",
    )
    arguments.add_server_address(parser, "0.0.0.0:5600")
    arguments.add_relay_limits(parser)
    arguments.add_state_dir(parser, "where its key is kept (default: ~/.local/state/p2pd/relay)")
    arguments.add_log_level(parser)


def _relay(options: argparse.Namespace) -> int:
    from daemon.host.logs import set_up_logging
    from daemon.host.state_paths import server_directory
    from daemon.relay_server import RelayOptions, run_relay

    set_up_logging(options.log_level, os.environ)
    return run_relay(
        RelayOptions(
            listen=options.listen,
            state_dir=options.state_dir or server_directory(os.environ, "relay"),
            limits=arguments.relay_limits(options),
            advertise=options.advertise,
        )
    )
