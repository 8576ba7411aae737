"""Reads a ZeroMQ socket on an asyncio event loop (any that has ``add_reader``; uvloop too)."""

import asyncio
from collections.abc import Callable

import zmq

BURST_MESSAGES = 128


class SocketReader:
    """Calls ``receive_one`` for as long as there is something to receive.

    The socket's FD is edge-triggered: it becomes readable once when the socket's state changes, and
    any call on the socket may swallow that edge. So each wake-up drains the socket, and whoever
    sends on it calls :meth:`check` afterwards, but for ``receive_one``, after which the socket is
    looked at anyway. A flood cannot starve the loop: after
    :data:`BURST_MESSAGES` the rest waits for the loop's next turn.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: zmq.Socket[bytes],
        receive_one: Callable[[], None],
    ) -> None:
        """``receive_one`` receives one message without waiting; :class:`zmq.Again` ends a turn."""
        self._loop = loop
        self._socket = socket
        self._receive_one = receive_one
        self._descriptor = int(socket.getsockopt(zmq.FD))
        self._scheduled: asyncio.Handle | None = None
        self._closed = False
        self._draining = False
        loop.add_reader(self._descriptor, self._drain)
        self.check()

    def check(self) -> None:
        """Look at the socket in the loop's next turn."""
        if self._scheduled is None and not self._draining and not self._closed:
            self._scheduled = self._loop.call_soon(self._drain)

    def close(self) -> None:
        """Stop reading. The socket itself stays the caller's, who closes it after this."""
        self._closed = True
        self._loop.remove_reader(self._descriptor)
        if self._scheduled is not None:
            self._scheduled.cancel()

    def _drain(self) -> None:
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        drained = False
        self._draining = True
        try:
            for _ in range(BURST_MESSAGES):
                if self._closed:
                    return
                self._receive_one()
        except zmq.Again:
            drained = True
        finally:
            self._draining = False
            # Also when receive_one raised: the loop reports the error, the rest is still read.
            if not drained:
                self.check()
