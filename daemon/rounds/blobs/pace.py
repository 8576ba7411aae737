"""How fast model bytes go out or come in: a bucket of bytes that may be owed.

A chunk begins whenever nothing is owed, and is then paid for. So what passes in any time is at most
the rate times that time, one second's worth, and one chunk.
"""

import math

from transport.rate_limit import TokenBucket

BURST_S = 1.0


class Pace:
    """One direction. Sans-IO: ``now`` is monotonic seconds."""

    def __init__(self, now: float, bytes_s: float = math.inf) -> None:
        self._rate = bytes_s
        self._bucket = TokenBucket(bytes_s, bytes_s * BURST_S, now)

    @property
    def is_unlimited(self) -> bool:
        """Whether nothing ever waits."""
        return math.isinf(self._rate)

    def set_rate(self, bytes_s: float, now: float) -> None:
        """Go at this rate from now on; what was owed is forgotten."""
        if bytes_s != self._rate:
            self._rate = bytes_s
            self._bucket = TokenBucket(bytes_s, bytes_s * BURST_S, now)

    def wait_s(self, now: float) -> float:
        """The seconds until the next chunk may begin; 0: now."""
        level = self._bucket.available(now)
        return 0.0 if level >= 0 else -level / self._rate

    def take(self, size_bytes: int) -> None:
        """A chunk of that size passes. Negative: what was taken turned out to be less."""
        self._bucket.take(size_bytes)
