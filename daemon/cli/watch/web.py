"""``web`` and ``metrics``: the page in a browser, and the numbers for a monitoring system."""

import argparse
import sys
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.control.client import ControlClient


def add_commands(commands: "Commands") -> None:
    """The group's parsers."""
    parser = arguments.add_command(
        commands,
        "web",
        _web,
        summary="show the swarm in a browser",
        description="Print the address of the page that shows the swarm: who is there and over"
        " which path, how the rounds go, losses and metrics as curves, and what is wrong with what"
        " to do. The peer serves it on this machine alone, from now on. The address holds a token"
        " that is new at each start of the peer: anybody who has it can look.\n\n"
        "From another machine: ssh -L 8080:127.0.0.1:PORT HOST, then the same address with port"
        " 8080.\n\nOf a server that was started with --web, name its --state-dir.",
        examples="  p2pd web\n  p2pd web --open\n  p2pd join link.txt --web 127.0.0.1:8080",
    )
    parser.add_argument("--open", action="store_true", help="open it in this machine's browser")
    arguments.add_running_state_dir(parser)
    arguments.add_json(parser)

    parser = arguments.add_command(
        commands,
        "metrics",
        _metrics,
        summary="the peer's numbers, as Prometheus reads them",
        description="Print the peer's metrics in Prometheus's text format. With 'p2pd join --web"
        " 127.0.0.1:PORT' Prometheus fetches the same from http://127.0.0.1:PORT/metrics;"
        " docs/metrics.md says what each means.",
        examples="  p2pd metrics\n  p2pd metrics --state-dir ~/peer-2 | grep p2pd_round",
    )
    arguments.add_running_state_dir(parser)


def _client(options: argparse.Namespace) -> "ControlClient":
    from daemon.cli.which_peer import find_running
    from daemon.control.client import ControlClient

    return ControlClient(find_running(options.state_dir))


def _web(options: argparse.Namespace) -> int:
    url = _page_of_server(options) or _client(options).open_page()
    if options.json:
        from daemon.cli.documents.kinds import Page, document_json

        print(document_json(Page(url=url)))
    else:
        print(url)
    if options.open:
        import webbrowser

        if not webbrowser.open(url):
            print("no browser found here: open the address above yourself", file=sys.stderr)
            return 1
    return 0


def _page_of_server(options: argparse.Namespace) -> str:
    """The address that a server has left in its state directory; empty: it is none's."""
    from daemon.host.state_paths import PAGE_FILE

    if options.state_dir is None:
        return ""
    try:
        text: str = (options.state_dir / PAGE_FILE).read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
    return text.strip()


def _metrics(options: argparse.Namespace) -> int:
    from daemon.web.metrics.peer import peer_metrics

    sys.stdout.write(peer_metrics(_client(options).status()))
    return 0
