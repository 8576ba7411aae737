"""When a round closes: as soon as all expected updates are here, or when waiting has cost enough.

The grace period starts when updates of half of the roster are here, so that one slow peer cannot
hold the others up; half-way through it a peer that still trains ends its training early and
contributes what it has. Pure: the caller brings time and sets.
"""

from protocol.identity import PeerId


class RoundClock:
    """The deadlines of one round."""

    def __init__(
        self, *, roster: frozenset[PeerId], grace_s: float, longest_round_s: float, now: float
    ) -> None:
        self._roster = roster
        self._grace_s = grace_s
        self._longest_until = now + longest_round_s
        self._grace_since: float | None = None
        self._complete = False

    def update(self, *, expected: frozenset[PeerId], held: frozenset[PeerId], now: float) -> None:
        """``expected``: who is waited for now. ``held``: whose updates are here and checked."""
        self._complete = bool(held) and expected <= held
        if self._grace_since is None and held and 2 * len(held & self._roster) >= len(self._roster):
            self._grace_since = now

    def should_close(self, now: float) -> bool:
        """Whether to wait no longer."""
        return self._complete or now >= self._closes_at()

    def should_hurry(self, now: float) -> bool:
        """Whether a peer that still trains should end with what it has."""
        return now >= self._closes_at() - self._grace_s / 2

    def get_timer(self, now: float) -> float | None:
        """The next moment at which one of the answers can change by itself, if any is left."""
        closes_at = self._closes_at()
        hurry_at = closes_at - self._grace_s / 2
        return next((moment for moment in (hurry_at, closes_at) if moment > now), None)

    def _closes_at(self) -> float:
        if self._grace_since is None:
            return self._longest_until
        return min(self._longest_until, self._grace_since + self._grace_s)
