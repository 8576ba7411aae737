"""How many votes of a roster decide, depending on how many of its peers live. Pure arithmetic.

With n in the roster, f = (n - 1) // 3 may lie. A *full* quorum is (n + f) // 2 + 1 votes: two of
them share more than f signers, so at least one that does not lie, and the n - f honest ones are
enough for one. While as many live, nothing less counts. When fewer live, the majority of the roster
has to do; when not even that lives, the majority of those who do. Training goes on then, and equal
bits are given up if somebody lies or the network is parted. The certificate shows it: it is *weak*.

>>> full_quorum_of(4), full_quorum_of(10)
(3, 7)
>>> four = Quorums(frozenset(map(PeerId, "abcd")))
>>> two = frozenset(map(PeerId, "ab"))
>>> four.is_quorum(two, live=four.roster), four.is_quorum(two, live=two)
(False, True)
"""

from collections.abc import Set
from dataclasses import dataclass

from protocol.identity import PeerId


def liars_of(roster_size: int) -> int:
    """How many of so many may lie: fewer than a third."""
    return max(0, roster_size - 1) // 3


def full_quorum_of(roster_size: int) -> int:
    """How many votes of so many peers prove a thing whatever the liars do."""
    return (roster_size + liars_of(roster_size)) // 2 + 1


@dataclass(frozen=True, slots=True)
class Quorums:
    """The quorums of one roster."""

    roster: frozenset[PeerId]

    def is_full(self, live: Set[PeerId]) -> bool:
        """Whether so many live that full quorums are to be had."""
        return len(live & self.roster) >= full_quorum_of(len(self.roster))

    def is_quorum(self, peers: Set[PeerId], live: Set[PeerId]) -> bool:
        """Whether what ``peers`` say is enough to act on, as long as ``live`` are all that live."""
        count = len(peers & self.roster)
        if self.is_full(live):
            return count >= full_quorum_of(len(self.roster))
        if 2 * len(live) > len(self.roster):
            return 2 * count > len(self.roster)
        return 2 * len(peers & live) > len(live)

    def is_proof(self, peers: Set[PeerId]) -> bool:
        """Whether so many say it that one of them at least does not lie, nor is alone."""
        return len(peers & self.roster) >= max(
            liars_of(len(self.roster)) + 1, min(2, len(self.roster))
        )

    def are_most(self, peers: Set[PeerId], live: Set[PeerId]) -> bool:
        """Whether ``peers`` are the majority of the roster, or of those who live when few do."""
        basis = self.roster if 2 * len(live) > len(self.roster) else live
        return 2 * len(peers & self.roster) > len(basis)

    @property
    def to_follow(self) -> int:
        """How many have to be in a later ballot for this peer to enter it before its own time is
        up: liars alone cannot hurry anybody."""
        return max(2, liars_of(len(self.roster)) + 1)
