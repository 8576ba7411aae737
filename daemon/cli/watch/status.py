"""``status`` and ``peers``: how a peer is doing, for people and for scripts."""

import argparse
import sys
from collections import Counter
from typing import TYPE_CHECKING

from daemon.cli import arguments
from daemon.cli.watch.peer_choice import PEER_HELP, find_peer

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.control.client import ControlClient
    from daemon.control.status import PeerStatus, RelayStatus, Status

NAME_CHARACTERS = 14
"""The longest name that the table has room for."""


def add_commands(commands: "Commands") -> None:
    """The group's parsers."""
    parser = arguments.add_command(
        commands,
        "status",
        _status,
        summary="how a peer is doing",
        description="Show how the peer is doing: the round it is in, how good the model is, who it"
        " is connected to, and what is wrong, if anything, with what to do about it. Exits 0 when"
        " all is well, 1 when something is not, 3 when no daemon runs.",
        examples="  p2pd status\n"
        "  p2pd status --json | jq '.metrics[0].value'\n"
        "  p2pd status --state-dir ~/peer-2",
    )
    arguments.add_running_state_dir(parser)
    arguments.add_json(parser)

    parser = arguments.add_command(
        commands,
        "peers",
        _peers,
        summary="the other peers, and over which path each is reached",
        description="Show the other peers: the path to each and why it is that one, the round it"
        " has, traffic, and how often something it sent was refused.",
        examples="  p2pd peers\n  p2pd peers alice\n  p2pd peers --json",
    )
    parser.add_argument(
        "peer",
        nargs="?",
        metavar="PEER",
        help=f"only this one: {PEER_HELP} (exit code 5 if unknown)",
    )
    arguments.add_running_state_dir(parser)
    arguments.add_json(parser)


def _client(options: argparse.Namespace) -> "ControlClient":
    from daemon.cli.which_peer import find_running
    from daemon.control.client import ControlClient

    return ControlClient(find_running(options.state_dir))


def _status(options: argparse.Namespace) -> int:
    from daemon.cli.exit_codes import ExitCode
    from daemon.cli.watch.doing import doing
    from daemon.control.client import read_status

    client = _client(options)
    document = client.status_json()
    status = read_status(document)
    if options.json:
        sys.stdout.write(document.decode() + "\n")
    else:
        print(describe(status, doing(status, client.history(status.round))))
    return ExitCode.DEGRADED if status.health else ExitCode.HEALTHY


def _peers(options: argparse.Namespace) -> int:
    status = _client(options).status()
    peers = status.peers if options.peer is None else (find_peer(status, options.peer),)
    if options.json:
        from daemon.cli.documents.kinds import Peers, document_json

        print(document_json(Peers(peer_id=status.peer_id, peers=tuple(peers))))
    elif not peers:
        print("no other peers yet")
    else:
        print(peer_table(peers))
    return 0


def describe(status: "Status", now: str = "") -> str:
    """The status document for people. ``now``: what the peer does, in a sentence."""
    from daemon.cli import output as text
    from protocol.text import printable

    of_rounds = f" of {status.rounds}" if status.rounds else ""
    quality = [
        *text.judged(status.metrics, status.loss, by=status.evaluated_by, evaluate=status.evaluate),
        f"speed {text.number(status.samples_per_second, 0, ' samples/s')}",
        *((f"on {printable(status.device)}",) if status.device else ()),
    ]
    paths = Counter(peer.path for peer in status.peers)
    path_counts = ", ".join(f"{count} {path}" for path, count in sorted(paths.items()))
    named = f"{status.name} " if status.name else ""
    lines = text.facts(
        [
            ("peer", f"{named}{status.peer_id}"),
            ("swarm", _swarm(status)),
            ("phase", f"{status.phase}; round {status.round}{of_rounds} complete"),
            *((("now", now),) if now else ()),
            *((("limits", ", ".join(status.limits)),) if status.limits else ()),
            ("model", ", ".join(quality)),
            *((("evaluated by", _evaluated_by(status)),) if status.evaluate else ()),
            ("rendezvous", _rendezvous(status)),
            *(("relay", _relay(relay)) for relay in status.relays),
            ("addresses", ", ".join(status.addresses) or text.UNKNOWN),
            (
                "traffic",
                f"{text.byte_count(status.bytes_sent)} sent,"
                f" {text.byte_count(status.bytes_received)} received;"
                f" updates: {status.updates_received} received,"
                f" {status.updates_rejected} refused",
            ),
            ("running", f"p2pd {status.version}, for {text.duration(status.uptime_s)}"),
            ("peers", f"{len(status.peers)}" + (f" ({path_counts})" if path_counts else "")),
        ]
    )
    parts = [lines]
    if status.peers:
        parts.append(peer_table(status.peers, brief=True))
    parts.extend(
        text.wrapped(printable(f"! {item.code}: {item.text}"), "", "  ")
        + "\n"
        + text.wrapped(printable(f"fix: {item.fix}"), "  ", "    ")
        for item in status.health
    )
    return "\n\n".join(parts)


def _swarm(status: "Status") -> str:
    if not status.task:
        return f"not known yet, shard {status.shard}"
    return f"{status.swarm}, task {status.task}, shard {status.shard}"


def _evaluated_by(status: "Status") -> str:
    from daemon.cli import output as text

    return text.who_evaluates(status.evaluate, status.evaluate_every)


def _rendezvous(status: "Status") -> str:
    from daemon.cli import output as text

    rendezvous = status.rendezvous
    state = f"{rendezvous.state}: {rendezvous.reason}" if rendezvous.reason else rendezvous.state
    parts = [state, f"announced {text.ago(rendezvous.last_announce_s)}"]
    if rendezvous.clock_offset_ms is not None:
        parts.append(f"its clock {rendezvous.clock_offset_ms:+.0f} ms")
    return ", ".join([*parts, text.short_uri(rendezvous.uri)])


def _relay(relay: "RelayStatus") -> str:
    from daemon.cli import output as text
    from protocol.text import counted

    state = f"{relay.state}: {relay.reason}" if relay.reason else relay.state
    round_trip = text.number(relay.round_trip_ms, 1, " ms")
    links = counted(relay.links, "path")
    return f"{state}, round trip {round_trip}, {links} over it, {text.short_uri(relay.uri)}"


def peer_table(peers: "tuple[PeerStatus, ...]", *, brief: bool = False) -> str:
    """The peers, one a line of 80 columns; unless ``brief``, what else there is follows each."""
    from daemon.cli import output as text

    header = ("PEER", "NAME", "PATH", "RTT", "ROUND", "SENT", "RECEIVED", "REFUSED")
    rows = [
        (
            peer.peer_id[:8],
            _short_name(peer),
            peer.path,
            text.number(peer.rtt_ms, 1, " ms"),
            _round(peer),
            text.byte_count(peer.bytes_sent),
            text.byte_count(peer.bytes_received),
            str(peer.rejects),
        )
        for peer in peers
    ]
    lines = text.table(header, rows).splitlines()
    if brief:
        return "\n".join(lines)
    blocks = [lines[0]]
    for peer, line in zip(peers, lines[1:], strict=True):
        blocks.append("\n".join([line, *(text.wrapped(fact, "  ") for fact in _facts(peer))]))
    return "\n".join(blocks)


def _facts(peer: "PeerStatus") -> list[str]:
    """What a line of the table has no room for."""
    from daemon.cli import output as text
    from protocol.text import printable

    facts = []
    if len(printable(peer.name)) > NAME_CHARACTERS:
        facts.append(f"its name: {peer.name}")
    where = f"at {peer.address}, " if peer.address else ""
    if peer.connections > 1:
        where += f"over {peer.connections} connections, "
    facts.append(f"{where}last update {text.ago(peer.last_update_s)}")
    if peer.rejects and peer.last_reject:
        facts.append(f"refused {text.ago(peer.last_reject_s)}: {peer.last_reject}")
    if peer.reason:
        facts.append(f"why this path: {peer.reason}")
    return [printable(fact) for fact in facts]


def _short_name(peer: "PeerStatus") -> str:
    from daemon.cli import output as text
    from protocol.text import printable

    return text.cut(printable(peer.name), NAME_CHARACTERS) or text.UNKNOWN


def _round(peer: "PeerStatus") -> str:
    from daemon.cli import output as text

    if peer.round is None:
        return text.UNKNOWN
    return f"{peer.round} ({-peer.round_lag:+d})" if peer.round_lag else str(peer.round)
