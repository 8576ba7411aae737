"""``top``: a peer, live in the terminal."""

import argparse
import sys
import time
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands

LOOK_S = 0.5
SHOWN_ROUNDS = 5


def add_commands(commands: "Commands") -> None:
    """The group's parser."""
    parser = arguments.add_command(
        commands,
        "top",
        _top,
        summary="watch a peer live in the terminal",
        description="Show live what the peer does: the round, for whom it waits, how good the model"
        " is, the other peers, and what is wrong. Ctrl-C ends the showing, not the peer. Where"
        " standard output is no terminal it shows one picture and ends.",
        examples="  p2pd top\n  p2pd top --state-dir ~/peer-2",
    )
    arguments.add_running_state_dir(parser)


def _top(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.live import Live

    from daemon.cli.watch.live import REFRESH_PER_S, LivePeer
    from daemon.cli.which_peer import find_running
    from daemon.control.client import ControlClient

    client = ControlClient(find_running(options.state_dir))
    picture = LivePeer()

    def look() -> None:
        status = client.status()
        picture.update(status, client.history(max(0, status.round - SHOWN_ROUNDS)))

    look()
    console = Console(highlight=False)
    if not sys.stdout.isatty():
        console.print(picture)
        return 0
    with Live(picture, console=console, refresh_per_second=REFRESH_PER_S):
        while True:
            time.sleep(LOOK_S)
            look()
