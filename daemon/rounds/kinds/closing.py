"""When a round closes: as soon as all expected updates are here, or when waiting has cost enough.

The grace period starts when updates of half of the roster are here, so that one slow peer cannot
hold the others up; half-way through it a peer that still trains ends its training early and
contributes what it has.

A rule that needs several updates (krum) is waited for longer: no grace period closes a round with
fewer, and while fewer peers are here than that, no time counts at all. Pure: the caller brings time
and sets.
"""

from protocol.identity import PeerId


class Closing:
    """The deadlines of one round.

    >>> ann, bob = PeerId("ann"), PeerId("bob")
    >>> both = frozenset({ann, bob})
    >>> closing = Closing(roster=both, grace_s=20.0, longest_round_s=100.0, now=0.0)
    >>> closing.update(expected=both, held=frozenset({ann}), now=5.0)
    >>> closing.should_close(24.0), closing.should_close(25.0)
    (False, True)
    """

    def __init__(
        self,
        *,
        roster: frozenset[PeerId],
        grace_s: float,
        longest_round_s: float,
        now: float,
        needed: int = 1,
    ) -> None:
        """``needed``: with how many updates the swarm's rule can do something."""
        self._roster = roster
        self._needed = needed
        self._grace_s = grace_s
        self._longest_round_s = longest_round_s
        self._longest_until = now + longest_round_s
        self._grace_since: float | None = None
        self._has_enough = False
        self._complete = False

    def update(
        self,
        *,
        expected: frozenset[PeerId],
        held: frozenset[PeerId],
        now: float,
        elsewhere: frozenset[PeerId] = frozenset(),
        lacks_peers: bool = False,
    ) -> None:
        """``expected``: who is waited for now. ``held``: whose updates are here and checked.
        ``elsewhere``: whose updates those hold who have closed the round, for a round that nobody
        else is waited for in. ``lacks_peers``: fewer could contribute now than are needed."""
        self._has_enough = len(held) >= self._needed
        has_all = bool(held) and expected <= held
        self._complete = has_all and len(held | elsewhere) >= self._needed
        if lacks_peers:
            self._longest_until = now + self._longest_round_s
            self._grace_since = None
            return
        if self._grace_since is None and held and 2 * len(held & self._roster) >= len(self._roster):
            self._grace_since = now

    def should_close(self, now: float) -> bool:
        """Whether to wait no longer."""
        return (
            self._complete
            or (self._has_enough and now >= self._closes_at())
            or now >= self._longest_until
        )

    def should_hurry(self, now: float) -> bool:
        """Whether a peer that still trains should end with what it has."""
        return now >= self._closes_at() - self._grace_s / 2

    def is_short(self, now: float) -> bool:
        """Whether the time is up, and only too few updates keep the round from closing."""
        return not self._has_enough and now >= self._closes_at()

    def get_timer(self, now: float) -> float | None:
        """The next moment at which one of the answers can change by itself, if any is left."""
        closes_at = self._closes_at()
        moments = (closes_at - self._grace_s / 2, closes_at, self._longest_until)
        return next((moment for moment in moments if moment > now), None)

    def closes_in_s(self, now: float) -> float:
        """Seconds until the time is up, as things are now; 0 when it is."""
        return max(0.0, self._closes_at() - now)

    def _closes_at(self) -> float:
        if self._grace_since is None:
            return self._longest_until
        return min(self._longest_until, self._grace_since + self._grace_s)
