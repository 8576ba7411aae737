"""How a peer is reached, and why not over a better path: what ``peers`` and ``status`` show."""

from collections.abc import Sequence
from dataclasses import dataclass

from daemon.net.path_kind import PathKind
from daemon.net.paths.path import PathWish
from daemon.net.peers.path_score import BEST_FIRST
from protocol.identity import PeerId

NONE_YET = "none yet"
"""Said of a kind that is still being looked for."""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """One peer. ``name`` and ``reason`` hold text of others: escape it."""

    peer_id: PeerId
    name: str
    kind: PathKind
    """CONNECTING before anything was found out, FAILED when nothing that was tried works."""
    address: str
    """The address of the other end; without a path, the addresses in its record."""
    reason: str
    """Why this path is used and not a better one."""
    is_live: bool
    rtt_ms: float | None
    bytes_sent: int
    bytes_received: int
    connections: int = 1
    """How many paths of that kind are used together (daemon/net/peers/lane_trial.py)."""


def kind_without_path(wish: PathWish) -> PathKind:
    """How a peer is shown that is not reached."""
    # It is known before anything else was tried whether a relay can help.
    has_tried = any(kind is not PathKind.RELAY for kind in wish.failures)
    return PathKind.FAILED if has_tried else PathKind.CONNECTING


def shown_address(remote: str | None, recorded: Sequence[str]) -> str:
    """The other end's address: ``remote`` if there is a path to it, else all that its record has.

    Of a connection that was accepted ZeroMQ tells no port, and it would be one that the system made
    up: the address under which that host listens says more, where the record has it.
    """
    if remote is None:
        return ", ".join(recorded)
    if remote.count(":") == 1 or remote.startswith("["):
        return remote  # it has its port
    same_host = (one for one in recorded if one.rpartition(":")[0].strip("[]") == remote)
    return next(same_host, remote)


def path_reason(
    wish: PathWish,
    active: PathKind | None,
    *,
    pinned: PathKind | None = None,
    is_faster: bool = False,
) -> str:
    """Why the peer is reached over ``active`` (None: not at all) and not over something better.

    ``pinned`` (a kind is measured) and ``is_faster`` (the kind in use was found to be) say why a
    path that there is may not be the one used.

    >>> wish = PathWish(record=None)  # The peer's record, in earnest.
    >>> wish.note_failure(PathKind.DIRECT, "192.0.2.7:5555: refused")
    >>> path_reason(wish, PathKind.ICE)
    'direct: 192.0.2.7:5555: refused; punched: none yet'
    """
    better = BEST_FIRST if active is None else BEST_FIRST[: BEST_FIRST.index(active)]
    if not better:
        return "there is no better kind"
    if active is None and not wish.failures:
        return "nothing was found out so far"

    def why_not(kind: PathKind) -> str:
        if not wish.has(kind):
            return wish.failures.get(kind, NONE_YET)
        if pinned is active:
            return "stands by while another is measured"
        if is_faster and active is not None:
            return f"stands by, {active.value} was found to be faster"
        return "stands by, nothing was heard over it for a moment"

    return "; ".join(f"{kind.value}: {why_not(kind)}" for kind in better)
