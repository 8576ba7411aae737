"""Who takes part in a round that is agreed on, and for whom it waits."""

from daemon.rounds.agreement.pace import Past
from daemon.rounds.agreement.quorums import liars_of
from daemon.rounds.lineage.position import Position
from daemon.rounds.parts import Parts
from daemon.rounds.patience import ANY_NEWCOMER
from protocol.identity import PeerId
from protocol.peers.peer_messages import Standing

NEAR_ROUNDS = 2
"""How far behind on the same line a peer may be to be waited for; it then has every chance to get
here within the grace period, where short rounds would for ever end before it does."""


class Company:
    """The peers of the round that starts from one state."""

    def __init__(self, parts: Parts, base: Position) -> None:
        self.roster = parts.lineage.roster
        self._base = base
        self._number = base.round + 1
        self._parts = parts

    @property
    def past(self) -> Past:
        """What the rounds before have shown of who takes its time."""
        patience, lineage = self._parts.patience, self._parts.lineage
        return Past(
            last_to_lead=lineage.last_to_lead,
            slow_to_lead=patience.leading.passed_over(self.roster, self._number + 1),
            late=patience.promises.passed_over(self.roster, self._number, self._may_lie),
        )

    def look(self) -> tuple[frozenset[PeerId], frozenset[PeerId]]:
        """Who takes part, and who is waited for.

        Those of the live roster take part who can or have done so already, and who else is ready to
        train from this base. They are waited for, and others near, as long as that pays. Of the
        roster no more are passed over than may lie: where more are late, it is the network.
        """
        live = self._parts.standings.live()
        ready = {peer: standing for peer, standing in live.items() if standing.ready}
        present = self._present(ready)
        near = {peer for peer in ready.keys() - self.roster if self._is_near(ready[peer])}
        expected = present | near
        if not self._are_newcomers_worth_waiting(self._number):
            expected = (expected & self.roster) | {self._parts.me}
        pauses = self._parts.patience.updates
        wasteful = pauses.passed_over(expected & self.roster, self._number, self._may_lie)
        others = pauses.passed_over(expected - self.roster, self._number)
        return present, expected - wasteful - others

    def newcomers(self, present: frozenset[PeerId]) -> frozenset[PeerId]:
        """Who of those ``present``, outside the roster, should be expected in the next round."""
        if not self._are_newcomers_worth_waiting(self._number + 1):
            return frozenset()  # Who contributes gets in all the same.
        others = present - self.roster
        return others - self._parts.patience.updates.passed_over(others, self._number + 1)

    def note(self, *, in_time: frozenset[PeerId], late: frozenset[PeerId]) -> None:
        """Remember who came, and who was waited for in vain.

        Those outside the roster count as one besides: whoever has an invite can come under a new id
        in each round.
        """
        patience = self._parts.patience
        patience.updates.note(self._number, in_time=in_time, late=late)
        if late - self.roster - {self._parts.me}:
            patience.newcomers.note_absence(ANY_NEWCOMER, self._number)
        elif in_time - self.roster - {self._parts.me}:
            patience.newcomers.note_contribution(ANY_NEWCOMER)

    def _are_newcomers_worth_waiting(self, round_number: int) -> bool:
        return self._parts.patience.newcomers.is_worth_waiting(ANY_NEWCOMER, round_number)

    def _present(self, ready: dict[PeerId, Standing]) -> frozenset[PeerId]:
        able = {peer for peer in self.roster & ready.keys() if self._can_take_part(ready[peer])}
        here = (self._base.round, self._base.base)
        others = {peer for peer, one in ready.items() if (one.round, one.base) == here}
        return frozenset(able | others | {self._parts.me})

    @property
    def _may_lie(self) -> int:
        return liars_of(len(self.roster))

    def _is_near(self, standing: Standing) -> bool:
        """Whether a peer that stands there is about to get here."""
        behind = self._base.round - standing.round
        knows = self._parts.lineage.knows(standing.round, standing.base)
        return 0 < behind <= NEAR_ROUNDS and knows

    def _can_take_part(self, standing: Standing) -> bool:
        """Whether a member of the roster that stands there is in this round, about to enter it, or
        past it; not if it fell back, or is on another line."""
        if standing.round > self._base.round:
            return True
        is_near = standing.round >= self._base.round - 1
        return is_near and not self._parts.lineage.contradicts(standing.round, standing.base)
