"""Who has a rendezvous client: what it is told, unasked."""

import asyncio
from typing import Protocol

from protocol.servers.rendezvous_messages import Notice


class NoticeReader(Protocol):
    """Who reads what the server says unasked."""

    def notice_received(self, notice: Notice) -> None:
        """Somebody came or left, or a signal is passed on."""


class RendezvousUser(NoticeReader, Protocol):
    """Called from the event loop; returns at once."""

    def granted(self) -> None:
        """The server granted a lease, or said what time it is: what it says of itself and of this
        peer may be new."""

    def state_changed(self, state: str) -> None:
        """:attr:`RendezvousClient.state` is another one now."""


class Visitor:
    """Only asks, and keeps no lease: waits until the server was reached, or was not.

    >>> async def example():
    ...     visitor = Visitor()
    ...     visitor.state_changed("connected")
    ...     return await visitor.arrived()
    >>> asyncio.run(example())
    'connected'
    """

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._state = "connecting"

    def notice_received(self, notice: Notice) -> None:
        """See :class:`NoticeReader`. Nobody sends a visitor any."""

    def granted(self) -> None:
        """See :class:`RendezvousUser`."""

    def state_changed(self, state: str) -> None:
        """See :class:`RendezvousUser`."""
        self._state = state
        self._changed.set()

    async def arrived(self) -> str:
        """The state, once the first attempt to connect came to an end."""
        while self._state == "connecting":
            await self._changed.wait()
            self._changed.clear()
        return self._state
