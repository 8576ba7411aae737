"""When to look for a path again after it was looked for in vain: at growing intervals."""

from random import Random

FIRST_S = 2.0
LONGEST_S = 600.0
LONGEST_ALONE_S = 15.0
"""While there is no path at all to the peer. Two tries fit in the 30 s in which it should be found
again when that is possible."""
CALL_BACK_S = 10.0
"""When to ask a busy peer again, if it has not called back. Its work may take some seconds, and
others may wait for it too."""


class ProbeIntervals:
    """Doubling, with jitter, so that all peers of a swarm do not probe in step.

    >>> intervals = ProbeIntervals(Random(1))
    >>> [round(intervals.failed(is_alone=False)) for _ in range(4)]
    [1, 4, 7, 10]
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._failures = 0

    def failed(self, *, is_alone: bool) -> float:
        """Seconds until the next attempt. ``is_alone``: there is no path of any kind."""
        longest_s = LONGEST_ALONE_S if is_alone else LONGEST_S
        interval_s = min(longest_s, FIRST_S * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        return self._random.uniform(0.5, 1.0) * interval_s

    def put_off(self) -> float:
        """Seconds until the next attempt when the peer put off the last one, and so nothing was
        looked for in vain."""
        return self._random.uniform(0.5, 1.0) * CALL_BACK_S

    def reset(self) -> None:
        """Something changed: begin anew."""
        self._failures = 0
