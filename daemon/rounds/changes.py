"""Tells those who wait that something changed: a standing, an update, a message, the worker."""

import asyncio
import contextlib


class Changes:
    """Tells all waits of this peer that something changed.

    Those who wait look again by themselves at what concerns them.

    >>> async def example() -> None:
    ...     changes = Changes()
    ...     asyncio.get_running_loop().call_soon(changes.notify)
    ...     await changes.wait()
    >>> asyncio.run(example())
    """

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Wake up those who wait for a change."""
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, at_most_s: float | None = None) -> None:
        """Return when something changes from now on, or after ``at_most_s`` seconds."""
        with contextlib.suppress(TimeoutError):  # a deadline, which the caller looks at
            async with asyncio.timeout(at_most_s):
                await self._next.wait()
