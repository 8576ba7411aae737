"""A peer's position: a round and its state."""

from dataclasses import dataclass

MAX_HISTORY = 10_000
"""States of which a peer remembers that its own came from them."""


@dataclass(frozen=True, slots=True)
class Position:
    """A complete round and the Merkle root of its state.

    >>> Position(7, bytes(32)) == Position(7, bytes(32))
    True
    """

    round: int
    base: bytes
