"""How a peer is reached, and why not over a better path: what ``peers`` and ``status`` show."""

from dataclasses import dataclass

from daemon.paths.path import PathWish
from daemon.paths.path_score import BEST_FIRST
from daemon.status import PathKind
from protocol.identity import PeerId


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """One peer. ``name`` and ``reason`` hold text of others: escape it."""

    peer_id: PeerId
    name: str
    kind: PathKind
    """CONNECTING before anything was found out, FAILED when nothing that was tried works."""
    address: str
    """Of the other end; without a path, those that its record names."""
    reason: str
    """Why it is this path and no better one."""
    is_live: bool
    rtt_ms: float | None
    bytes_sent: int
    bytes_received: int


def path_reason(wish: PathWish, active: PathKind | None) -> str:
    """Why the peer is reached over ``active`` (None: not at all) and not over something better."""
    better = BEST_FIRST if active is None else BEST_FIRST[: BEST_FIRST.index(active)]
    known = [f"{kind.value}: {wish.failures[kind]}" for kind in better if kind in wish.failures]
    if known:
        return "; ".join(known)
    if active is None:
        return "nothing was found out so far"
    return "there is no better kind" if not better else "better kinds were not tried so far"
