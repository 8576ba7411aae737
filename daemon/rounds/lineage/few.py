"""Waits before a peer goes by what so few say that all of them may lie. Pure: the time goes in.

A peer that has just started, or was cut off, may meet a liar first; the others come within seconds.
"""

from daemon.rounds.agreement.quorums import liars_of

FEW_S = 15.0
"""How long it must stay the best there is; less than restarted peers wait for each other."""


class Few:
    """Since when only few say what this peer would follow.

    >>> few = Few()
    >>> [few.must_wait(1, roster_size=4, now=now) for now in (0.0, 14.0, 15.0)]
    [True, True, False]
    >>> few.must_wait(2, roster_size=4, now=16.0)
    False
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def forget(self) -> None:
        """Forget since when: nobody is ahead of this peer now."""
        self._since = None

    def must_wait(self, count: int, *, roster_size: int, now: float) -> bool:
        """Whether ``count`` peers are no more than may lie of this peer's roster, and have not
        said it for long."""
        if count > liars_of(roster_size):
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now < self._since + FEW_S
