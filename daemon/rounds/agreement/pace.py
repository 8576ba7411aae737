"""Who takes its time in one round's agreement. Sans-IO: the caller brings the time.

A member that only wastes time breaks no rule that anybody could prove. So each peer judges by its
own clock, from when a quorum waits: whose promise comes late, and whose proposal. Its findings cost
nobody a vote or an update. A leader waits for no promise of a member that promises late. The
promises name members that lead slowly; a member that half of them name leads last in the rounds to
come.
"""

from collections.abc import Set
from dataclasses import dataclass

from daemon.rounds.agreement.events import Led, PromisedInTime
from protocol.identity import PeerId

LATE_S = 0.5
"""A promise that comes so long after a quorum's is late."""
SLOW_S = 3.0
"""A leader that has proposed nothing so long after a quorum has promised is slow: the patience of a
leader, and a second to fetch what it lacks."""


@dataclass(frozen=True, slots=True)
class Past:
    """What the rounds before have shown."""

    last_to_lead: frozenset[PeerId] = frozenset()
    """Who leads last in this round, as the last certificate says."""
    slow_to_lead: frozenset[PeerId] = frozenset()
    """Whom this peer itself remembers to have led slowly."""
    late: frozenset[PeerId] = frozenset()
    """Whose promises this peer does not wait for when it leads."""


NOTHING_YET = Past()


class Pace:
    """What one peer notes in one round.

    >>> ann, bob, eve = map(PeerId, ("ann", "bob", "eve"))
    >>> pace = Pace(ann, NOTHING_YET)
    >>> pace.begin_ballot(bob)
    >>> pace.quorum_came(now=10.0)
    >>> pace.judge(10.0 + LATE_S, promised={ann, bob}, awaited={ann, bob, eve})
    >>> pace.take_events()
    [PromisedInTime(in_time=frozenset({'bob'}), late=frozenset({'eve'}))]
    """

    def __init__(self, me: PeerId, past: Past) -> None:
        self.late = past.late
        """Whose promises are not waited for."""
        self.slow = past.slow_to_lead
        """Who leads slowly, by all that this peer has seen."""
        self._me = me
        self._leader = me
        self._is_led = True
        self._since: float | None = None
        self._has_looked = False
        self._has_judged_promises = False
        self._events: list[PromisedInTime | Led] = []

    def begin_ballot(self, leader: PeerId) -> None:
        """``leader`` leads from now on."""
        self._leader = leader
        self._is_led = leader == self._me
        self._since = None
        self._has_looked = False

    def quorum_came(self, now: float) -> None:
        """A quorum has come to this ballot: quick members are there soon."""
        if self._since is None:
            self._since = now

    def see_proposal(self) -> None:
        """The leader's proposal is here, and follows."""
        self._note_lead(is_in_time=True)

    def see_foul(self) -> None:
        """Its proposal does not follow."""
        self._note_lead(is_in_time=False)

    def get_timer(self) -> float | None:
        """When to call :meth:`judge`."""
        if self._since is None:
            return None
        if not self._has_looked:
            return self._since + LATE_S
        return None if self._is_led else self._since + SLOW_S

    def judge(self, now: float, promised: Set[PeerId], awaited: Set[PeerId]) -> None:
        """Note who has not done by now what it had time for. ``awaited``: who should have
        ``promised``."""
        if self._since is None:
            return
        if now >= self._since + LATE_S and not self._has_looked:
            self._has_looked = True
            self._note_promises(promised, awaited)
            if self._leader not in promised:
                self._note_lead(is_in_time=False)
        if now >= self._since + SLOW_S:
            self._note_lead(is_in_time=False)

    def end(self, promised: Set[PeerId]) -> None:
        """The round is decided: those who have promised until now were in time."""
        self._note_promises(promised, promised)

    def take_events(self) -> list[PromisedInTime | Led]:
        """What was noted since it was asked last."""
        events, self._events = self._events, []
        return events

    def _note_promises(self, promised: Set[PeerId], awaited: Set[PeerId]) -> None:
        if not self._has_judged_promises:
            self._has_judged_promises = True
            others = awaited - {self._me}
            in_time = frozenset(others & promised)
            late = frozenset(others - promised)
            self._events.append(PromisedInTime(in_time, late))

    def _note_lead(self, *, is_in_time: bool) -> None:
        if not self._is_led:
            self._is_led = True
            self._events.append(Led(self._leader, is_in_time))
            if not is_in_time:
                self.slow |= {self._leader}
