"""How long to wait before the next try, so that a thousand clients don't come back at once."""

import math
from random import Random

_LEAST_WAIT_S = 0.1
_MOST_WAIT_S = 300.0


class Backoff:
    """Waits that double with each failure, from ``first`` seconds up to ``most``.

    With ``random`` a wait is chosen evenly from 0 to that. This is "full jitter" in M. Brooker,
    Exponential Backoff and Jitter (AWS Architecture Blog, 2015): of the variants compared there it
    costs a server least.

    >>> backoff = Backoff(1.0, 3.0)
    >>> [backoff.next_s() for _ in range(4)]
    [1.0, 2.0, 3.0, 3.0]
    """

    def __init__(self, first: float, most: float, random: Random | None = None) -> None:
        self._first_s = first
        self._most_s = most
        self._random = random
        self._ceiling_s = first

    def next_s(self) -> float:
        """How long to wait after one more failure, in seconds."""
        ceiling_s = self._ceiling_s
        self._ceiling_s = min(self._most_s, ceiling_s * 2)
        return ceiling_s if self._random is None else self._random.uniform(0.0, ceiling_s)

    def reset(self) -> None:
        """It worked: the next failure is the first again."""
        self._ceiling_s = self._first_s


def bounded_wait_s(wait_s: float) -> float:
    """A server's wish, within reason: it can neither make us spin nor stay away for good."""
    if not math.isfinite(wait_s):
        return _MOST_WAIT_S
    return max(_LEAST_WAIT_S, min(wait_s, _MOST_WAIT_S))
