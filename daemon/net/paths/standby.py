"""Kinds of path that stand in until there is something better: relay and ice.

The kernel carries the two better kinds end to end. An ice path does not replace a relay path: on
networks with loss the relay may be faster, and ice falls silent when a NAT forgets its mapping.
"""

from collections.abc import Callable
from typing import Protocol

from daemon.net.path_kind import PathKind
from daemon.net.paths.path import PathWish

CALM_S = 15.0
"""How long a better path has to stand before the other is closed."""
BETTER = (PathKind.DIRECT, PathKind.PUNCHED)


class StandbyPath(Protocol):
    """A path that can be given up."""

    def give_up(self, reason: str) -> None:
        """Close it, if it has not ended, and tell its owner."""


def has_better(wish: PathWish) -> bool:
    """Whether no path of such a kind is needed."""
    return any(wish.has(kind) for kind in BETTER)


def is_spare(wish: PathWish, kind: PathKind) -> bool:
    """Whether none of ``kind`` is needed: there is a better one, and nobody measures this one.

    >>> class Punched:
    ...     kind = PathKind.PUNCHED
    >>> wish = PathWish(record=None)  # The peer's record, in earnest.
    >>> wish.paths = frozenset({Punched()})
    >>> is_spare(wish, PathKind.RELAY)
    True
    >>> with wish.asking_for(PathKind.RELAY):
    ...     is_spare(wish, PathKind.RELAY)
    False
    """
    return has_better(wish) and not wish.asks_for(kind)


async def close_when_needless(
    wish: PathWish, kind: PathKind, opened: Callable[[], StandbyPath | None]
) -> None:
    """Close the path of ``kind`` that this side opened whenever better ones have stood for a while;
    until cancelled."""

    def is_needless() -> bool:
        return is_spare(wish, kind) and wish.has(kind)

    while True:
        await wish.until(is_needless)
        await wish.until_or_after(CALM_S, lambda: not is_needless())
        path = opened()
        if is_needless() and path is not None:
            path.give_up("there is a better path")
        await wish.until(lambda: not is_needless())
