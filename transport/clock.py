"""Tells the time: monotonic seconds for waiting, Unix milliseconds for statements.

This module is the only one of the network that asks the machine for the time. Tests hand in a
subclass that they move by hand.

Invariants:

- Deadlines use :meth:`Clock.monotonic`: a wall clock that is wrong or jumps moves none of them.
- What is fresh is judged by the rendezvous's time as soon as that is known: a machine whose clock
  is days off takes part like any other.
- What has expired stays so: :meth:`Clock.expiry_ms` is never behind this machine's own clock, so
  that no rendezvous can make an old invite hold again.
"""

import time
from statistics import median_low

PLAUSIBLE_FROM_MS = 1_735_689_600_000
"""2025: p2pd was not there before."""
PLAUSIBLE_UNTIL_MS = 4_102_444_800_000
"""2100: what lies beyond is no time but an attempt."""
STEP_MS = 10_000
"""A change of the time by less than this is no news."""


def is_plausible(unix_ms: int) -> bool:
    """Whether ``unix_ms`` may be the time at all."""
    return PLAUSIBLE_FROM_MS <= unix_ms < PLAUSIBLE_UNTIL_MS


class Clock:
    """The machine's clocks, and the time by the rendezvous servers that it has heard of.

    The time of a server is kept as its distance from a clock that nobody sets, so that it stays
    right when somebody sets the wall clock, and while the machine sleeps.

    >>> clock, hour_ms = Clock(), 3_600_000
    >>> ahead_ms = clock.own_ms() + 2 * hour_ms
    >>> clock.server_said(b"the server's key", ahead_ms, since_boot_ms=clock.since_boot_ms())
    >>> round(clock.offset_ms / hour_ms)
    2
    >>> clock.server_said(b"the server's key", 0, since_boot_ms=clock.since_boot_ms())
    >>> round(clock.offset_ms / hour_ms)
    2
    """

    def __init__(self) -> None:
        self._boot_times: dict[bytes, int] = {}
        """When this machine was started, in Unix milliseconds, by the server with this key."""
        self._boot_ms: int | None = None
        self._follows_servers = False

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        return time.monotonic()

    def processor_s(self) -> float:
        """Seconds of a processor that this thread has taken."""
        return time.thread_time()

    def since_boot_ms(self) -> int:
        """Milliseconds since this machine was started, its sleep included."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def own_ms(self) -> int:
        """Unix time in milliseconds as this machine has it, uncorrected."""
        return time.time_ns() // 1_000_000

    def now_ms(self) -> int:
        """Unix time in milliseconds: the rendezvous's if it is known, else this machine's."""
        return self.own_ms() if self._boot_ms is None else self._boot_ms + self.since_boot_ms()

    def expiry_ms(self) -> int:
        """The time by which invites expire: the later one of this machine's and the rendezvous's.

        Only the rendezvous's where :meth:`follow_servers` was called.
        """
        return self.now_ms() if self._follows_servers else max(self.own_ms(), self.now_ms())

    @property
    def offset_ms(self) -> int:
        """How far this machine's clock is behind the time that it goes by."""
        return self.now_ms() - self.own_ms()

    def server_said(self, server: bytes, unix_ms: int, *, since_boot_ms: int) -> None:
        """The server with this key had ``unix_ms`` when this machine had ``since_boot_ms``.

        What cannot be the time is passed over. When servers disagree the one in the middle counts;
        of an even number of servers, this machine's own clock is one more.
        """
        if not is_plausible(unix_ms):
            return
        self._boot_times[server] = unix_ms - since_boot_ms
        votes = list(self._boot_times.values())
        if len(votes) % 2 == 0:
            votes.append(self.own_ms() - self.since_boot_ms())
        self._boot_ms = median_low(votes)

    def follow_servers(self) -> None:
        """This machine's own clock was found to be wrong: it decides nothing any more."""
        self._follows_servers = True
