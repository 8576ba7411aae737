"""Tells those who wait that something changed: a standing, an update, a message, the worker."""

import asyncio


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
        self._waiting: dict[asyncio.Future[None], None] = {}
        """In the order in which they came, which is the one in which they are woken."""

    def notify(self) -> None:
        """Wake up those who wait for a change."""
        for waiter in self._waiting:
            _wake(waiter)

    async def wait(self, at_most_s: float | None = None) -> None:
        """Return when something changes from now on, or after ``at_most_s`` seconds."""
        # Less than asyncio's own timeout: in a round this is done for each message.
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        timer = None if at_most_s is None else loop.call_later(at_most_s, _wake, waiter)
        self._waiting[waiter] = None
        try:
            await waiter
        finally:
            del self._waiting[waiter]
            if timer is not None:
                timer.cancel()


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
