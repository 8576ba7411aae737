"""The time, as it is handed to what needs it."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one that only goes forward, and the one on the wall."""

    def monotonic(self) -> float:
        """Seconds since some moment."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""


class SystemClock:
    """The machine's."""

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000
