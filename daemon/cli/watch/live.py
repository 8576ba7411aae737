"""A peer as a live picture in a terminal, for ``p2pd top`` and ``p2pd join``; fits 80 columns."""

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from daemon.cli.output import (
    UNKNOWN,
    byte_count,
    cut,
    duration,
    judged,
    number,
    whose_word,
    wrapped,
)
from daemon.cli.watch.doing import doing, round_line, time_left_s
from daemon.control.history import History
from daemon.control.status import PeerStatus, Status
from protocol.text import printable

MAX_ROUNDS = 3
LEAST_PEERS = 3
OTHER_LINES = 12
"""What stands around the peers."""
NAME_CHARACTERS = 14
SWARM_CHARACTERS = 24
GAP = "   "
REFRESH_PER_S = 2


class LivePeer:
    """Holds the newest documents; rich asks for the picture at each refresh."""

    def __init__(self) -> None:
        self._status: Status | None = None
        self._history: History | None = None

    def update(self, status: Status, history: History) -> None:
        """The newest documents."""
        self._status, self._history = status, history

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The picture of this moment."""
        status, history = self._status, self._history
        if status is None or history is None:
            yield Text("starting")
            return
        yield Text(_head(status, history, options.max_width), no_wrap=True, overflow="ellipsis")
        yield Text(doing(status, history), style="bold", overflow="ellipsis", no_wrap=True)
        for record in history.rounds[-MAX_ROUNDS:]:
            yield Text(round_line(record, status.rounds), style="dim", no_wrap=True)
        if status.peers:
            yield Text()
            yield _peers(status, set(history.waits_for), max(LEAST_PEERS, _room(console, status)))
        for item in status.health:
            yield Text(wrapped(printable(f"! {item.text}"), "", "  "), style="yellow")
            yield Text(wrapped(printable(f"fix: {item.fix}"), "  ", "    "), style="dim")


def _room(console: Console, status: Status) -> int:
    return console.height - OTHER_LINES - 3 * len(status.health)


def _head(status: Status, history: History, width: int) -> str:
    """One line: of what says how good the model is, as much as there is room for."""
    of_rounds = f" of {status.rounds}" if status.rounds else ""
    parts = [
        cut(printable(status.swarm), SWARM_CHARACTERS) or "p2pd",
        f"round {status.round}{of_rounds}",
    ]
    left = time_left_s(status, history)
    if left is not None:
        parts.append(f"about {duration(left)} left")
    word = whose_word(status.evaluated_by)
    said = judged(status.metrics, status.loss, by="", evaluate=status.evaluate)
    for quality in said if status.round else ():
        if len(GAP.join([*parts, quality, *word])) <= width:
            parts.append(quality)
    return GAP.join([*parts, *word])


def _peers(status: Status, awaited: set[str], most: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
    for heading in ("peer", "path"):
        table.add_column(heading, no_wrap=True)
    for heading in ("round trip", "round", "sent", "received"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis")
    # Whom it waits for and who is in trouble first: the rest may not fit.
    peers = sorted(status.peers, key=lambda peer: (peer.peer_id not in awaited, not peer.rejects))
    for peer in peers[:most]:
        table.add_row(
            cut(printable(peer.name), NAME_CHARACTERS) or peer.peer_id[:8],
            peer.path,
            number(peer.rtt_ms, 1, " ms"),
            UNKNOWN if peer.round is None else str(peer.round),
            byte_count(peer.bytes_sent),
            byte_count(peer.bytes_received),
            Text(_note(peer, awaited), style="yellow"),
        )
    if len(peers) > most:
        table.add_row(f"and {len(peers) - most} more")
    return table


def _note(peer: PeerStatus, awaited: set[str]) -> str:
    notes = []
    if peer.peer_id in awaited:
        notes.append("awaited")
    if peer.round_lag is not None and peer.round_lag > 0:
        notes.append(f"{peer.round_lag} behind")
    if peer.rejects:
        notes.append(f"{peer.rejects} refused")
    return ", ".join(notes)
