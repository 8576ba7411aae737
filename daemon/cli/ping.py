"""``ping`` and ``speed``: what is between this peer and another one."""

import argparse
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from daemon.cli import arguments
from daemon.cli.watch.peer_choice import PEER_HELP, find_peer

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.control.client import ControlClient
    from daemon.control.status import PeerStatus
    from daemon.net.measuring.results import PingResult

DEFAULT_COUNT = 4
DEFAULT_WITHIN_S = 60
PATHS = ("direct", "punched", "ice", "relay")

PING_DESCRIPTION = """\
Ask another peer of the swarm for a reply, over the connection that training uses, and show over
which path it came, how long it took, and, when it came over a relay, why not directly.

Paths, the best first: direct (one of the two can be dialled), punched (a TCP connection through
both routers), ice (UDP through both routers), relay (a server passes on what it cannot read).

Exits 0 with replies, 5 without any or for an unknown peer. With --until-direct: 0 as soon as a
reply came over another path than a relay, 1 when none did in time.
"""

SPEED_DESCRIPTION = """\
Send data to another peer, over the connection that training uses, and show how fast it arrived. The
other peer counts what comes and keeps nothing; the figure is of what it has confirmed. Training
goes on meanwhile, so the figure is what training leaves over.

With --path a path of that kind is measured, and looked for if there is none at the moment;
meanwhile all that this peer sends to the other goes over it. A slow path is measured for a minute
at most. Exits 5 when there is no such path, the peer is unknown, or it has no time for this.
"""


def add_commands(commands: "Commands") -> None:
    """The group's parsers."""
    parser = arguments.add_command(
        commands,
        "ping",
        _ping,
        summary="how long another peer takes to reply, and over which path",
        description=PING_DESCRIPTION,
        examples="  p2pd ping alice\n"
        "  p2pd ping alice -c 1 --json\n"
        "  p2pd ping 4zq7 --until-direct",
    )
    parser.add_argument("peer", metavar="PEER", help=PEER_HELP)
    parser.add_argument(
        "-c",
        "--count",
        type=arguments.whole_number(1, 1_000_000),
        metavar="N",
        help=f"how often to ask (default: {DEFAULT_COUNT}; with --until-direct: until then)",
    )
    parser.add_argument(
        "--size",
        type=arguments.whole_number(0, 60_000),
        default=56,
        metavar="BYTES",
        help="how much to send, and to get back (default: 56)",
    )
    parser.add_argument(
        "--interval",
        type=arguments.real_number(0.1, 3600),
        default=1.0,
        metavar="SECONDS",
        help="how long to wait between two (default: 1)",
    )
    parser.add_argument(
        "--until-direct",
        action="store_true",
        help="go on until a reply comes over another path than a relay",
    )
    parser.add_argument(
        "--within",
        type=arguments.real_number(1, 86_400),
        default=DEFAULT_WITHIN_S,
        metavar="SECONDS",
        help=f"with --until-direct: give up after so long (default: {DEFAULT_WITHIN_S})",
    )
    arguments.add_running_state_dir(parser)
    arguments.add_json(parser)

    parser = arguments.add_command(
        commands,
        "speed",
        _speed,
        summary="how fast data get to another peer",
        description=SPEED_DESCRIPTION,
        examples="  p2pd speed alice\n"
        "  p2pd speed alice --size 20M --path relay\n"
        "  p2pd speed 4zq7 --json",
    )
    parser.add_argument("peer", metavar="PEER", help=PEER_HELP)
    parser.add_argument(
        "--size",
        type=arguments.byte_size(1, 4_000_000_000),
        default=100_000_000,
        metavar="SIZE",
        help="how much to send: a number with k, M or G (default: 100M)",
    )
    parser.add_argument(
        "--path",
        choices=PATHS,
        metavar="KIND",
        help="direct, punched, ice or relay (default: the path in use)",
    )
    arguments.add_running_state_dir(parser)
    arguments.add_json(parser)


def _client(options: argparse.Namespace) -> "ControlClient":
    from daemon.cli.which_peer import find_running
    from daemon.control.client import ControlClient

    return ControlClient(find_running(options.state_dir))


@dataclass
class _Pings:
    """What came of the pings so far."""

    peer: "PeerStatus"
    replies: "list[PingResult]" = field(default_factory=list)
    losses: list[str] = field(default_factory=list)

    @property
    def is_direct(self) -> bool:
        """Whether the last reply came without a relay."""
        return bool(self.replies) and self.replies[-1].path != "relay"


def _ping(options: argparse.Namespace) -> int:
    from daemon.cli.exit_codes import ExitCode

    client = _client(options)
    pings = _Pings(find_peer(client.status(), options.peer))
    _ping_repeatedly(client, pings, options)
    if options.json:
        _print_json(pings)
    else:
        _print_summary(pings)
    if not pings.replies:
        return ExitCode.UNREACHABLE
    if options.until_direct and not pings.is_direct:
        return ExitCode.DEGRADED
    return ExitCode.HEALTHY


def _ping_repeatedly(client: "ControlClient", pings: _Pings, options: argparse.Namespace) -> None:
    from protocol.errors import TransportError

    count = options.count or (None if options.until_direct else DEFAULT_COUNT)
    give_up_at = time.monotonic() + options.within
    asked = 0
    reason = ""
    loss = ""
    while True:
        asked += 1
        try:
            reply = client.ping(pings.peer.peer_id, options.size)
        except TransportError as error:
            pings.losses.append(str(error))
            if not options.json:
                what = "no reply, as before" if str(error) == loss else str(error)
                _print_line(f"{_name(pings.peer)}: {what}")
            loss = str(error)
        else:
            pings.replies.append(reply)
            if not options.json:
                _print_line(f"{_name(pings.peer)}: {reply.rtt_ms:.1f} ms, {_path(reply)}")
                if reply.path == "relay" and reply.reason != reason:
                    _print_line(f"  relayed, because {reply.reason}")
                reason = reply.reason
            loss = ""
        if asked == count or (options.until_direct and pings.is_direct):
            return
        if options.until_direct and time.monotonic() + options.interval > give_up_at:
            return
        time.sleep(options.interval)


def _name(peer: "PeerStatus") -> str:
    return f"{peer.name} ({peer.peer_id[:8]})" if peer.name else peer.peer_id[:8]


def _path(reply: "PingResult") -> str:
    # A relay's address says itself that it is one.
    return reply.address if reply.path == "relay" else f"{reply.path}, {reply.address}"


def _print_line(line: str) -> None:
    from protocol.text import printable

    print(printable(line), flush=True)


def _print_summary(pings: _Pings) -> None:
    asked, replied = len(pings.replies) + len(pings.losses), len(pings.replies)
    line = f"{asked} asked, {replied} replied"
    if pings.replies:
        times = [reply.rtt_ms for reply in pings.replies]
        line += (
            f"; {min(times):.1f} ms at least, {sum(times) / replied:.1f} ms on average,"
            f" {max(times):.1f} ms at most"
        )
    print(line)


def _print_json(pings: _Pings) -> None:
    from daemon.cli.documents.kinds import Pings, Reply, RoundTrips, document_json

    times = [reply.rtt_ms for reply in pings.replies]
    last = pings.replies[-1] if pings.replies else None
    document = Pings(
        peer_id=pings.peer.peer_id,
        name=pings.peer.name,
        asked=len(pings.replies) + len(pings.losses),
        replied=len(pings.replies),
        path=None if last is None else last.path,
        address=None if last is None else last.address,
        reason=pings.losses[-1] if last is None else last.reason,
        rtt_ms=RoundTrips(
            min=min(times, default=None),
            mean=sum(times) / len(times) if times else None,
            max=max(times, default=None),
        ),
        replies=tuple(
            Reply(path=reply.path, address=reply.address, rtt_ms=reply.rtt_ms)
            for reply in pings.replies
        ),
        losses=tuple(pings.losses),
    )
    print(document_json(document))


def _speed(options: argparse.Namespace) -> int:
    from daemon.cli import output as text

    client = _client(options)
    peer = find_peer(client.status(), options.peer)
    result = client.speed(peer.peer_id, options.size, options.path or "")
    if options.json:
        from daemon.cli.documents.kinds import document_json

        print(document_json(result))
        return 0
    _print_line(
        f"to {_name(peer)} over {result.path}, {result.address}: {result.mb_per_s:.2f} MB/s"
        f" ({text.byte_count(result.bytes)} in {result.seconds:.2f} s)"
    )
    if result.bytes < result.requested_bytes:
        _print_line(
            f"the time was up before all {text.byte_count(result.requested_bytes)} were sent"
        )
    return 0
