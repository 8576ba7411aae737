"""How long to wait before the next try, so that a thousand clients don't come back at once."""

import math
from random import Random

_LEAST_WAIT_S = 0.1
_MOST_WAIT_S = 300.0


class FullJitterBackoff:
    """Waits chosen evenly from 0 to a ceiling that doubles with each failure.

    "Full jitter" in M. Brooker, Exponential Backoff and Jitter (AWS Architecture Blog, 2015): of
    the variants compared there it costs the server least.
    """

    def __init__(self, random: Random, *, first_s: float, most_s: float) -> None:
        self._random = random
        self._first_s = first_s
        self._most_s = most_s
        self._ceiling_s = first_s

    def next_s(self) -> float:
        """How long to wait after one more failure."""
        wait_s = self._random.uniform(0, self._ceiling_s)
        self._ceiling_s = min(self._most_s, self._ceiling_s * 2)
        return wait_s

    def reset(self) -> None:
        """It worked: the next failure is the first again."""
        self._ceiling_s = self._first_s


def bounded_wait_s(wait_s: float) -> float:
    """A server's wish, within reason: it can neither make us spin nor stay away for good."""
    if not math.isfinite(wait_s):
        return _MOST_WAIT_S
    return max(_LEAST_WAIT_S, min(wait_s, _MOST_WAIT_S))
