"""A token bucket: a rate with a burst. Sans-IO."""

import math


class TokenBucket:
    """Fills by ``rate`` tokens a second up to ``burst``; starts full. An infinite rate is free."""

    __slots__ = ("_burst", "_level", "_rate", "_updated")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = math.inf if math.isinf(rate) else burst
        self._level = self._burst
        self._updated = now

    def available(self, now: float) -> float:
        """How many tokens there are now."""
        if now > self._updated:
            if not math.isinf(self._level):
                self._level = min(self._burst, self._level + (now - self._updated) * self._rate)
            self._updated = now
        return self._level

    def take(self, tokens: float) -> None:
        """Take ``tokens`` of the ones that were available."""
        self._level -= tokens
