"""How much a path is preferred to others to the same peer, as both ends see it."""

from daemon.net.path_kind import PathKind
from daemon.net.paths.path import Path
from protocol.identity import PeerId
from protocol.peers.hello import Role

BEST_FIRST = (PathKind.DIRECT, PathKind.PUNCHED, PathKind.ICE, PathKind.RELAY)


ABOVE_KIND = 0.75
"""Above the paths of a kind, whoever opened them, and below those of the next better one."""
ABOVE_ALL = 10.0


def score(
    path: Path,
    *,
    own_id: PeerId,
    peer_id: PeerId,
    relay_beats: PathKind | None = None,
    pinned: PathKind | None = None,
) -> float:
    """Higher is better; ``relay_beats``: the kind that the relay is preferred to; ``pinned``: the
    kind to be used now, whatever is better.

    Of two paths of one kind both ends prefer the one that the lower id opened: so when each dials
    the other, both drop the same one.
    """
    lower_opened = (path.channel.role is Role.INITIATOR) == (own_id < peer_id)
    if path.kind is pinned:
        return ABOVE_ALL + (0.5 if lower_opened else 0.0)
    if relay_beats is not None and path.kind is PathKind.RELAY:
        return _rank(relay_beats) + ABOVE_KIND + (0.1 if lower_opened else 0.0)
    return _rank(path.kind) + (0.5 if lower_opened else 0.0)


def _rank(kind: PathKind) -> int:
    return len(BEST_FIRST) - BEST_FIRST.index(kind)
