"""Who leads which ballot of a round. Pure, and the same for everyone who looks."""

import hashlib
from collections.abc import Set

from protocol.identity import PeerId, public_key_of


class Leaders:
    """The roster of one round in the order in which it leads, ballot after ballot.

    By a hash, which nobody can choose; but those whom the last certificate names, since they led
    slowly or in vain, come last. Which ballots turned out foul, each peer finds by itself.
    """

    def __init__(
        self,
        roster: frozenset[PeerId],
        round_number: int,
        base: bytes,
        last: Set[PeerId] = frozenset(),
    ) -> None:
        """``last``: who comes last."""
        seed = round_number.to_bytes(8, "big") + base
        self.order = tuple(
            sorted(
                roster,
                key=lambda peer: (
                    peer in last,
                    hashlib.sha256(seed + public_key_of(peer)).digest(),
                ),
            )
        )
        self._foul: set[int] = set()

    @property
    def digest(self) -> bytes:
        """SHA-256 over the keys in order: of rounds with one digest the same ballots have the same
        leaders."""
        return hashlib.sha256(b"".join(map(public_key_of, self.order))).digest()

    def of(self, ballot: int) -> PeerId:
        """Who leads ``ballot``."""
        return self.order[ballot % len(self.order)]

    def note_foul(self, ballot: int) -> None:
        """That ballot's leader proposed an outcome that does not follow: the ballot leads to
        nothing."""
        self._foul.add(ballot)

    def next(self, ballot: int, living: Set[PeerId]) -> int:
        """The first ballot from ``ballot`` on that one who lives leads, and not foully; the one
        after all of them where there is none."""
        for later in range(ballot, ballot + len(self.order)):
            if self.of(later) in living and later not in self._foul:
                return later
        return ballot + len(self.order)
