"""A clock that only the test moves."""

from transport.clock import Clock


class StoppedClock(Clock):
    """Monotonic seconds stand at :attr:`now`."""

    def __init__(self, now: float = 0.0) -> None:
        super().__init__()
        self.now = now

    def monotonic(self) -> float:
        return self.now
