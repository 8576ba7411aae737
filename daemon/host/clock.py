"""What time it is: monotonic seconds for waiting, Unix milliseconds for statements."""

import time


class Clock:
    """The machine's clocks, and how far the rendezvous says that the wall clock is off.

    Deadlines use :meth:`monotonic`, so a wall clock that is wrong or jumps moves none of them.
    Tests hand in a subclass that they move by hand.
    """

    def __init__(self) -> None:
        self._offset_ms = 0

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        return time.monotonic()

    def now_ms(self) -> int:
        """Unix time in milliseconds, corrected by the server's offset."""
        return time.time_ns() // 1_000_000 + self._offset_ms

    @property
    def offset_ms(self) -> int:
        """The server's clock minus this machine's."""
        return self._offset_ms

    def set_offset_ms(self, offset_ms: int) -> None:
        """Correct :meth:`now_ms` by ``offset_ms`` from now on."""
        self._offset_ms = offset_ms
