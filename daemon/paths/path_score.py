"""How much a path is preferred to others to the same peer, as both ends see it."""

from daemon.paths.path import Path
from daemon.status import PathKind
from protocol.hello import Role
from protocol.identity import PeerId

BEST_FIRST = (PathKind.DIRECT, PathKind.PUNCHED, PathKind.ICE, PathKind.RELAY)


ABOVE_ICE = 2.75
"""Above ice, whoever opened it, and below punched."""
ABOVE_ALL = 10.0


def score(
    path: Path,
    *,
    own_id: PeerId,
    peer_id: PeerId,
    prefers_relay: bool = False,
    pinned: PathKind | None = None,
) -> float:
    """Higher is better; ``prefers_relay``: a relay was found to be faster than ice; ``pinned``:
    the kind to be used now, whatever is better.

    Of two paths of one kind both ends prefer the one that the lower id opened: so when each dials
    the other, both drop the same one.
    """
    lower_opened = (path.channel.role is Role.INITIATOR) == (own_id < peer_id)
    if path.kind is pinned:
        return ABOVE_ALL + (0.5 if lower_opened else 0.0)
    if prefers_relay and path.kind is PathKind.RELAY:
        return ABOVE_ICE + (0.1 if lower_opened else 0.0)
    return len(BEST_FIRST) - BEST_FIRST.index(path.kind) + (0.5 if lower_opened else 0.0)
