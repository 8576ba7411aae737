"""How much a path is preferred to others to the same peer, as both ends see it."""

from dataclasses import dataclass

from daemon.net.path_kind import PathKind
from daemon.net.paths.path import Path
from protocol.identity import PeerId
from protocol.peers.hello import Role

BEST_FIRST = (PathKind.DIRECT, PathKind.PUNCHED, PathKind.ICE, PathKind.RELAY)

ABOVE_KIND = 0.75
"""Above the paths of a kind, whoever opened them, and below those of the next better one."""
ABOVE_ALL = 10.0


@dataclass(frozen=True, slots=True)
class Preferred:
    """``kind`` is used although there is a path of the better kind ``beaten``."""

    kind: PathKind
    beaten: PathKind


def score(
    path: Path,
    *,
    own_id: PeerId,
    peer_id: PeerId,
    preferred: Preferred | None = None,
    pinned: PathKind | None = None,
) -> float:
    """Higher is better. ``preferred``: a kind found to be faster than a better one, or tried.
    ``pinned``: the kind to be used now, whatever is better.

    Of two paths of one kind both ends prefer the one that the lower id opened: so when each dials
    the other, both drop the same one.

    >>> from types import SimpleNamespace as APath
    >>> def dialled(kind):
    ...     return APath(kind=kind, channel=APath(role=Role.INITIATOR))
    >>> ann, bob = PeerId("ann"), PeerId("bob")
    >>> score(dialled(PathKind.DIRECT), own_id=ann, peer_id=bob)
    4.5
    >>> score(dialled(PathKind.RELAY), own_id=ann, peer_id=bob)
    1.5
    """
    lower_opened = (path.channel.role is Role.INITIATOR) == (own_id < peer_id)
    if path.kind is pinned:
        return ABOVE_ALL + (0.5 if lower_opened else 0.0)
    if preferred is not None and path.kind is preferred.kind:
        return _rank(preferred.beaten) + ABOVE_KIND + (0.1 if lower_opened else 0.0)
    return _rank(path.kind) + (0.5 if lower_opened else 0.0)


def _rank(kind: PathKind) -> int:
    return len(BEST_FIRST) - BEST_FIRST.index(kind)
