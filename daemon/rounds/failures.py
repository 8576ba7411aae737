"""How long this peer rests after rounds that failed here, so that it does not fail all the time.

The cause of a failure (a full disk, a device, a loss that is no number) mostly makes the next try
fail too. So pauses grow with each failure, whatever it is, up to a bound, and end with the first
round that succeeds. Pure: the caller brings the time.
"""

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 300.0


class RoundFailures:
    """The failures since the last round that succeeded.

    >>> failures = RoundFailures()
    >>> [failures.add("disk full", now=0.0) for _ in range(3)]
    [1.0, 2.0, 4.0]
    >>> failures.left_s(now=3.0)
    1.0
    """

    def __init__(self) -> None:
        self.count = 0
        self.reason = ""
        """Of the last one."""
        self._pause_s = 0.0
        self._until = 0.0

    def add(self, reason: str, now: float) -> float:
        """A round failed; how many seconds to rest."""
        self.count += 1
        self.reason = reason
        self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        self._until = now + self._pause_s
        return self._pause_s

    def clear(self) -> None:
        """A round succeeded."""
        self.count = 0
        self.reason = ""
        self._pause_s = self._until = 0.0

    def left_s(self, now: float) -> float:
        """How long it still is to the next try."""
        return max(0.0, self._until - now)
