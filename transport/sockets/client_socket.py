"""The socket that connects: a ZeroMQ DEALER with CURVE on an asyncio event loop.

libzmq connects, and connects again after a loss, by itself; what was in flight is lost then, and
the user of the socket has to know what to send again. It does not try again after a refusal.

>>> import asyncio
>>> from transport.curve import CurveKeys
>>> from transport.sockets.context import make_context
>>> from transport.sockets.socket_options import CurveClientRole
>>> class Owner:
...     def __init__(self):
...         self.heard = asyncio.Queue()
...     def link_changed(self, event):
...         self.heard.put_nowait(event)
>>> async def example(address):
...     role, owner = CurveClientRole(CurveKeys.generate(), bytes(32)), Owner()
...     with make_context() as context:
...         async with ClientSocket(context, address, role, SocketLimits(1024), owner) as client:
...             return await owner.heard.get(), client.send(b"hello")
>>> asyncio.run(example(HostPort("127.0.0.1", 1)))
(<LinkEvent.UNREACHABLE: 'unreachable'>, False)
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import zmq

from protocol.errors import TransportError
from protocol.uri import HostPort
from transport.sockets.async_socket import AsyncSocket
from transport.sockets.socket_monitor import SocketEvent
from transport.sockets.socket_options import CurveRole, SocketLimits, wire_bytes

_ROUTE = b"server"
"""A DEALER has one connection; its table of connections wants a name for it."""


class LinkEvent(enum.Enum):
    """What became of the connection."""

    CONNECTED = "connected"
    """The CURVE handshake is done: the other side holds the key that was expected of it."""
    UNREACHABLE = "unreachable"
    """Nobody listens there, or no way leads there."""
    DISCONNECTED = "disconnected"
    HANDSHAKE_FAILED = "handshake failed"
    """Not the expected key, not ZeroMQ, or cut in the middle; libzmq tries again."""
    REFUSED = "refused"
    """The other side's ZAP said no; libzmq does not try again."""

    @property
    def trouble(self) -> str:
        """Why there is no connection, in words that follow the other side's name or address."""
        return _TROUBLE[self]


_TROUBLE = {
    LinkEvent.CONNECTED: "",
    LinkEvent.UNREACHABLE: "nobody answers there",
    LinkEvent.DISCONNECTED: "the connection ended",
    LinkEvent.HANDSHAKE_FAILED: "whoever answers there does not hold the expected key",
    LinkEvent.REFUSED: "it does not let this peer's key in",
}


LINK_EVENTS = {
    SocketEvent.READY: LinkEvent.CONNECTED,
    SocketEvent.CLOSED: LinkEvent.UNREACHABLE,
    SocketEvent.DISCONNECTED: LinkEvent.DISCONNECTED,
    SocketEvent.HANDSHAKE_BROKEN: LinkEvent.HANDSHAKE_FAILED,
    SocketEvent.HANDSHAKE_VIOLATED: LinkEvent.HANDSHAKE_FAILED,
    SocketEvent.HANDSHAKE_REFUSED: LinkEvent.REFUSED,
}


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How soon libzmq tries again: after ``first_s``, doubling with jitter up to ``most_s``."""

    first_s: float = 0.1
    most_s: float = 5.0


class ConnectionOwner(Protocol):
    """The user of a :class:`ClientSocket`. Called from the event loop; returns at once."""

    def frame_received(self, frame: zmq.Frame) -> None:
        """A message came. The frame is libzmq's own, and may be passed on without a copy."""

    def link_changed(self, event: LinkEvent) -> None:
        """The connection was made or lost, or could not be made."""


class ClientSocket:
    """A connected DEALER. An async context manager.

    ``source`` is the local address to connect from (TCP hole punching needs a chosen one); the
    CURVE role does not depend on who connects: two connecting sockets can have one each.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        address: HostPort,
        role: CurveRole,
        limits: SocketLimits,
        owner: ConnectionOwner,
        *,
        source: HostPort | None = None,
        reconnect: Reconnect | None = Reconnect(),
    ) -> None:
        """``reconnect`` None: one connection, once; after its end the socket is of no more use."""
        self._context = context
        self._endpoint = (
            address.zmq_endpoint if source is None else f"{source.zmq_endpoint};{address}"
        )
        self._role = role
        self._limits = limits
        self._owner = owner
        self._reconnect = reconnect
        self._is_ready = False

    async def __aenter__(self) -> "ClientSocket":
        """Raises :class:`TransportError` when libzmq rejects the address."""
        self._inner = AsyncSocket(self._context, zmq.DEALER, self._role, self._limits, self)
        socket = self._inner.socket
        if self._reconnect is None:
            socket.setsockopt(zmq.RECONNECT_IVL, -1)
        else:
            socket.setsockopt(zmq.RECONNECT_IVL, round(self._reconnect.first_s * 1000))
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, round(self._reconnect.most_s * 1000))
            # Nothing is queued for a connection that is not there: send says so instead. The price:
            # at its end libzmq drops what had come over it and was not read so far. Where there is
            # but one connection, what it carried last matters, and _is_ready does the same.
            socket.setsockopt(zmq.IMMEDIATE, 1)
        try:
            socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            self._inner.close()
            raise TransportError(f"cannot connect to {self._endpoint}: {error.strerror}") from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inner.close()

    def send(self, frame: bytes) -> bool:
        """Queue ``frame``, without ever waiting. False: not connected, or the queue is full."""
        if self._reconnect is None and not self._is_ready:
            return False
        try:
            self._inner.send(frame)
        except zmq.Again:
            return False
        return True

    def take_frames(self, _route: bytes, frames: Sequence[zmq.Frame]) -> None:
        """See :class:`SocketOwner`."""
        descriptor = int(frames[-1].get(zmq.SRCFD))
        if self._inner.is_open(descriptor):
            self._inner.connections.delivered(descriptor, _ROUTE, wire_bytes(frames))
        if len(frames) != 1:
            self._inner.connections.disconnect(_ROUTE, "multipart")
        else:
            self._owner.frame_received(frames[0])

    def take_event(self, event: SocketEvent, value: int, _endpoint: str) -> None:
        """See :class:`SocketOwner`."""
        if event is SocketEvent.READY:
            self._is_ready = True
        elif event is SocketEvent.DISCONNECTED:
            self._is_ready = False
            self._inner.connections.closed(value)
        link_event = LINK_EVENTS.get(event)
        if link_event is not None:
            self._owner.link_changed(link_event)

    def route_gone(self, route: bytes) -> None:
        """See :class:`SocketOwner`. There is one route, and its owner hears of its end."""
