"""What time it is: monotonic seconds for waiting, Unix milliseconds for statements.

This module is the only one of the network that asks the machine for the time. Tests hand in a
subclass that they move by hand.
"""

import time


class Clock:
    """The machine's clocks, and how far the wall clock is off by what the rendezvous says.

    Deadlines use :meth:`monotonic`, so a wall clock that is wrong or jumps moves none of them.
    """

    def __init__(self) -> None:
        self._offset_ms = 0

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        return time.monotonic()

    def own_ms(self) -> int:
        """Unix time in milliseconds as this machine has it, uncorrected."""
        return time.time_ns() // 1_000_000

    def now_ms(self) -> int:
        """Unix time in milliseconds, corrected by the rendezvous's offset."""
        return self.own_ms() + self._offset_ms

    @property
    def offset_ms(self) -> int:
        """The rendezvous's clock minus this machine's."""
        return self._offset_ms

    def set_offset_ms(self, offset_ms: int) -> None:
        """Correct :meth:`now_ms` by ``offset_ms`` from now on."""
        self._offset_ms = offset_ms
