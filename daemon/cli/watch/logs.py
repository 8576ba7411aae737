"""``logs``: the last log lines of a peer, and those to come."""

import argparse
import sys
import time
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.host.log_line import LogLine

LOOK_S = 0.5
SHOWN = 50
MAX_SHOWN = 100_000


def add_commands(commands: "Commands") -> None:
    """The group's parser."""
    parser = arguments.add_command(
        commands,
        "logs",
        _logs,
        summary="a peer's last log lines",
        description="Print the last lines that the peer logged, at its --log-level; it keeps 2,000"
        " in memory. With -f, those to come too, until Ctrl-C.",
        examples="  p2pd logs\n  p2pd logs -f\n"
        "  p2pd logs -n 500 --json | jq 'select(.level != \"info\")'",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on with those to come")
    parser.add_argument(
        "-n",
        type=arguments.whole_number(0, MAX_SHOWN),
        default=SHOWN,
        metavar="N",
        dest="count",
        help=f"how many of the last lines (default: {SHOWN})",
    )
    arguments.add_running_state_dir(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document a line")
    arguments.add_format(parser)


def _logs(options: argparse.Namespace) -> int:
    from daemon.cli.which_peer import find_running
    from daemon.control.client import ControlClient

    client = ControlClient(find_running(options.state_dir))
    lines = client.logs()
    seen = lines[-1].number if lines else 0
    _print(lines[-options.count :] if options.count else [], as_json=options.json)
    while options.follow:
        time.sleep(LOOK_S)
        lines = client.logs(seen)
        _print(lines, as_json=options.json)
        seen = lines[-1].number if lines else seen
    return 0


def _print(lines: "list[LogLine]", *, as_json: bool) -> None:
    import msgspec

    for line in lines:
        if as_json:
            sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        else:
            sys.stdout.write(plain(line) + "\n")
    sys.stdout.flush()


def plain(line: "LogLine") -> str:
    """The line as the peer itself prints it.

    >>> from daemon.host.log_line import LogLine
    >>> line = LogLine(number=7, time=0.5, level="info", logger="p2pd.peer", text="round 3")
    >>> plain(line).partition(".")[2]  # the hour before it is by the machine's own time
    '500 INFO    p2pd.peer: round 3'
    """
    clock = time.strftime("%H:%M:%S", time.localtime(line.time))
    milliseconds = int(line.time * 1000) % 1000
    return f"{clock}.{milliseconds:03d} {line.level.upper():7} {line.logger}: {line.text}"
