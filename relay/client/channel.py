"""Moves frames, time and events between one ZeroMQ connection to a relay and its sans-IO core."""

import asyncio
import math
import time
from typing import Protocol

import zmq

from protocol.servers.relay_messages import MAX_FRAME_BYTES, Code
from protocol.uri import HostPort
from relay.client.connection import ClientConnection
from relay.client.events import Ended, Event
from transport.curve import CurveKeys
from transport.sockets.client_socket import ClientSocket, LinkEvent
from transport.sockets.socket_options import CurveClientRole, SocketLimits

CONNECT_TIMEOUT_S = 10.0
_SOCKET_LIMITS = SocketLimits(
    max_message_bytes=MAX_FRAME_BYTES,
    queue_messages=1024,
    max_unread_bytes=64 << 20,
    handshake_s=CONNECT_TIMEOUT_S,
)


class ChannelOwner(Protocol):
    """Who has a channel."""

    def connected(self, channel: "RelayChannel") -> ClientConnection:
        """The relay has proven that it holds its key: the connection to speak with it."""

    def take_event(self, event: Event) -> None:
        """What the connection tells."""


class RelayChannel:
    """A connection that is made once, and once ended stays so."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        address: HostPort,
        relay_key: bytes,
        curve: CurveKeys,
        owner: ChannelOwner,
    ) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._connection: ClientConnection | None = None
        self._over: asyncio.Future[Ended] = self._loop.create_future()
        self._flush_handle: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._socket = ClientSocket(
            context,
            address,
            CurveClientRole(curve, relay_key),
            _SOCKET_LIMITS,
            self,
            reconnect=None,
        )

    async def run(self) -> Ended:
        """Connect, and serve until the connection is over: why.

        Raises :class:`TransportError` when it cannot even be tried.
        """
        try:
            async with self._socket:
                self._timer = self._loop.call_later(
                    CONNECT_TIMEOUT_S, self._end, f"no answer in {CONNECT_TIMEOUT_S:.0f} s"
                )
                # Not awaited itself: cancelled, it would be done, and nobody be told of the end.
                await asyncio.wait((self._over,))
                return self._over.result()
        finally:
            self._end("this peer ended the connection")
            for handle in (self._timer, self._flush_handle):
                if handle is not None:
                    handle.cancel()

    def send(self, frame: bytes) -> bool:
        """Hand a frame to the socket, without waiting; False: not now."""
        return self._socket.send(frame)

    def flush_soon(self) -> None:
        """Let the connection send what waits, once this turn of the event loop is over."""
        if self._flush_handle is None:
            self._flush_handle = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_handle = None
        if self._connection is not None and not self._over.done():
            self._connection.flush(time.monotonic())
            self._follow_up(self._connection)

    def frame_received(self, frame: zmq.Frame) -> None:
        """See :class:`ConnectionOwner`."""
        if self._connection is not None:
            self._connection.receive(frame.buffer, time.monotonic())
            self._follow_up(self._connection)

    def link_changed(self, event: LinkEvent) -> None:
        """See :class:`ConnectionOwner`."""
        if event is not LinkEvent.CONNECTED:
            self._end(event.trouble)
        elif self._connection is None and not self._over.done():
            self._connection = self._owner.connected(self)
            self._arm(self._connection)

    def _on_timer(self) -> None:
        if self._connection is not None:
            self._timer_at = math.inf
            self._connection.handle_timer(time.monotonic())
            self._follow_up(self._connection)

    def _follow_up(self, connection: ClientConnection) -> None:
        while (event := connection.next_event()) is not None:
            self._owner.take_event(event)
            if isinstance(event, Ended) and not self._over.done():
                self._over.set_result(event)
        if connection.get_timer() < self._timer_at and not self._over.done():
            self._arm(connection)

    def _arm(self, connection: ClientConnection) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = connection.get_timer()
        self._timer = self._loop.call_later(self._timer_at - time.monotonic(), self._on_timer)

    def _end(self, reason: str) -> None:
        if self._over.done():
            return
        if self._connection is None:
            self._over.set_result(Ended(Code.PEER_GONE, reason, 0.0))
        else:
            self._connection.end(Code.PEER_GONE, reason)
            self._follow_up(self._connection)
