"""Decides which peers a round waits for.

A newcomer on a slow line could never enter a swarm with short rounds, so rounds wait for it. A peer
that was waited for in vain is passed over for ever more rounds, so that it costs the others less
and less, whether its line is slow or it wastes their time on purpose. It is not shut out: what it
sends in time counts as ever. It makes good in several rounds for each one in which it was waited
for in vain, so it gains nothing by taking turns. Pure: rounds are counted, there is no time.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass

from protocol.identity import PeerId

FIRST_PAUSE = 1
LONGEST_PAUSE = 256
"""Rounds for which a peer is passed over after one, and after many, in which it was waited for in
vain; doubling in between."""
MAX_PAUSES = 10_000
"""Beyond that the oldest is forgotten: in an open swarm anybody can invent any number of peers."""
ANY_NEWCOMER = NEIGHBOURS = PeerId("")
"""Stands for all of them together."""
TO_MAKE_GOOD = 4
"""In so many rounds a peer has to be in time before its next pause is half as long."""


@dataclass(frozen=True, slots=True)
class _Pause:
    waited_in: int
    rounds: int
    good: int = 0

    def covers(self, round_number: int) -> bool:
        """Whether it holds for that round. It does not for the rounds before: those are still to
        come when the state of a shorter line was taken."""
        return self.waited_in <= round_number <= self.waited_in + self.rounds


class Pauses:
    """How the waiting for each peer's part in one kind of thing has paid.

    >>> pauses, ann = Pauses(), PeerId("ann")
    >>> pauses.note_absence(ann, 7)
    >>> [pauses.is_worth_waiting(ann, number) for number in (7, 8, 9)]
    [False, False, True]
    """

    def __init__(self, first: int = FIRST_PAUSE, longest: int = LONGEST_PAUSE) -> None:
        self._first = first
        self._longest = longest
        self._pauses: dict[PeerId, _Pause] = {}

    def is_worth_waiting(self, peer: PeerId, round_number: int) -> bool:
        """Whether round ``round_number`` should wait for ``peer``."""
        pause = self._pauses.get(peer)
        return pause is None or not pause.covers(round_number)

    def passed_over(
        self, peers: Iterable[PeerId], round_number: int, most: int | None = None
    ) -> frozenset[PeerId]:
        """Whom of ``peers`` that round does not wait for. ``most``: no more than so many, those
        that were in vain most often."""
        found = [peer for peer in peers if not self.is_worth_waiting(peer, round_number)]
        found.sort(key=lambda peer: (-self._pauses[peer].rounds, peer))
        return frozenset(found[:most])

    def note_contribution(self, peer: PeerId) -> None:
        """``peer``'s part came in time."""
        before = self._pauses.get(peer)
        if before is None:
            return
        good, rounds = before.good + 1, before.rounds
        if good == TO_MAKE_GOOD:
            good, rounds = 0, rounds // 2
        if rounds < self._first:
            del self._pauses[peer]
        else:
            self._pauses[peer] = _Pause(before.waited_in, rounds, good)

    def note_absence(self, peer: PeerId, round_number: int) -> None:
        """Round ``round_number`` waited for ``peer`` until its time was up, in vain."""
        before = self._pauses.get(peer)
        if before is not None and before.covers(round_number):
            return  # it is noted
        rounds = self._first if before is None else min(2 * before.rounds, self._longest)
        self._pauses.pop(peer, None)
        self._pauses[peer] = _Pause(round_number, rounds)
        if len(self._pauses) > MAX_PAUSES:
            del self._pauses[next(iter(self._pauses))]

    def note(self, round_number: int, *, in_time: Set[PeerId], late: Set[PeerId]) -> None:
        """Who was in time in that round, and who was waited for in vain."""
        for peer in in_time:
            self.note_contribution(peer)
        for peer in late:
            self.note_absence(peer, round_number)


class Patience:
    """What one peer remembers of all others, by what it waited for."""

    def __init__(self) -> None:
        self.updates = Pauses()
        """For updates, or parts of a model."""
        self.newcomers = Pauses()
        """For the updates of peers outside the roster, taken together."""
        self.neighbours = Pauses()
        """For updates that go from neighbour to neighbour, all together."""
        self.promises = Pauses(first=8, longest=1024)
        """For promises, where this peer leads. A peer that is passed over loses nothing by it."""
        self.leading = Pauses(first=64, longest=4096)
        """For proposals. Each takes long, and to lead last costs a peer nothing."""
