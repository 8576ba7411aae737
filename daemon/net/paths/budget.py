"""Bounds the attempts at paths to all peers together, so that attempts never take what standing
paths need.

Each attempt holds ZeroMQ sockets and file descriptors until it is decided. Both have a hard limit
for the process; a process at its limit can open nothing any more, no path and no file. So the
number of attempts follows from the limits, whatever others' records ask for.

>>> async def example():
...     budget = PathBudget(descriptors=40, sockets=1023)  # room for two dials at a time
...     async with budget.dials, budget.dials:
...         return budget.dials.locked()
>>> asyncio.run(example())
True
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

_SHARE = 4
"""Trying takes at most one in so many: the rest is for paths that stand, files and the worker."""
_SOCKETS_A_DIAL = 3
"""A DEALER, and two for what libzmq reports about it."""
_DESCRIPTORS_A_DIAL = 5
MOST_DIALS, LEAST_DIALS = 48, 2
MOST_PUNCHES, LEAST_PUNCHES = 16, 1
MOST_LANES, LEAST_LANES = 48, 1
FEW_LANES = 4
"""Whoever has as many paths to a peer leaves the last places to others."""
ICE_ATTEMPTS = 4
"""Each holds a UDP socket for each of the machine's addresses, and takes time to compute."""
LOOK_UPS = 2
"""Look-ups of host names in others' records at a time. A look-up keeps a thread busy until it is
answered, and the event loop has four of them for everybody."""


class LanePlaces:
    """Places for paths beside others. Half of them are kept for peers to which there are few paths,
    so that those who ask for many do not take all.

    >>> places = LanePlaces(4)
    >>> with places.taken():
    ...     places.room(beside=FEW_LANES), places.room(beside=1)
    (1, 3)
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count

    def room(self, *, beside: int) -> int:
        """How many paths may be made beside so many of their kind."""
        few = max(0, FEW_LANES - beside)
        left = self._free - self._count // 2
        return max(0, left, min(few, self._free))

    def has_room(self, *, beside: int) -> bool:
        """Whether one may."""
        return self.room(beside=beside) > 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have a place; whether there is one is asked before, without a wait in between."""
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class PathBudget:
    """The places for attempts; each is a semaphore, and whoever waits for a place longest gets
    it."""

    def __init__(self, *, descriptors: int, sockets: int) -> None:
        """``descriptors``: how many file descriptors others leave; ``sockets``: how many sockets
        the ZeroMQ context can have."""
        fit = min(descriptors // _DESCRIPTORS_A_DIAL, sockets // _SOCKETS_A_DIAL) // _SHARE
        self.dials = asyncio.Semaphore(max(LEAST_DIALS, min(MOST_DIALS, fit)))
        """One for each address that is dialled."""
        self.punches = asyncio.Semaphore(max(LEAST_PUNCHES, min(MOST_PUNCHES, fit // 2)))
        """One for each attempt to punch."""
        self.lanes = LanePlaces(max(LEAST_LANES, min(MOST_LANES, fit // 2)))
        """One for each path that this peer makes beside another of its kind, while it stands."""
        self.ice = asyncio.Semaphore(ICE_ATTEMPTS)
        """One for each attempt by ICE."""
        self.look_ups = asyncio.Semaphore(LOOK_UPS)
        """One for each host name that is looked up."""
