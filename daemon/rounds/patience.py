"""Decides which peers outside the roster a round waits for.

A newcomer on a slow line could never enter a swarm with short rounds, so rounds wait for it. A peer
that was waited for in vain is passed over for ever more rounds, so that it costs the others less
and less. Pure: rounds are counted, there is no time.
"""

from dataclasses import dataclass

from protocol.identity import PeerId

FIRST_PAUSE = 1
LONGEST_PAUSE = 256
"""Rounds for which a peer is passed over after one, and after many, in which it was waited for in
vain; doubling in between."""
MAX_PAUSES = 10_000
"""Beyond that the oldest is forgotten: in an open swarm anybody can invent any number of peers."""


@dataclass(frozen=True, slots=True)
class _Pause:
    waited_in: int
    rounds: int

    def covers(self, round_number: int) -> bool:
        """Whether it holds for that round. It does not for the rounds before: those are still to
        come when the state of a shorter line was taken."""
        return self.waited_in <= round_number <= self.waited_in + self.rounds


class Patience:
    """How the waiting for each peer has paid.

    >>> patience, ann = Patience(), PeerId("ann")
    >>> patience.note_absence(ann, 7)
    >>> [patience.is_worth_waiting(ann, number) for number in (7, 8, 9)]
    [False, False, True]
    """

    def __init__(self) -> None:
        self._pauses: dict[PeerId, _Pause] = {}

    def is_worth_waiting(self, peer: PeerId, round_number: int) -> bool:
        """Whether round ``round_number`` should wait for ``peer``."""
        pause = self._pauses.get(peer)
        return pause is None or not pause.covers(round_number)

    def note_contribution(self, peer: PeerId) -> None:
        """``peer``'s update came in time."""
        self._pauses.pop(peer, None)

    def note_absence(self, peer: PeerId, round_number: int) -> None:
        """Round ``round_number`` waited for ``peer`` until its time was up, in vain."""
        before = self._pauses.get(peer)
        if before is not None and before.covers(round_number):
            return  # it is noted
        rounds = FIRST_PAUSE if before is None else min(2 * before.rounds, LONGEST_PAUSE)
        self._pauses.pop(peer, None)
        self._pauses[peer] = _Pause(round_number, rounds)
        if len(self._pauses) > MAX_PAUSES:
            del self._pauses[next(iter(self._pauses))]
