"""The socket that connects: a ZeroMQ DEALER with CURVE on an asyncio event loop.

libzmq connects, and connects again after a loss, by itself; what was in flight is lost then, and
whoever uses the socket has to know what to send again. It does not try again after a refusal.
"""

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import zmq

from protocol.errors import TransportError
from protocol.uri import HostPort
from transport.socket_monitor import SocketEvent, SocketMonitor
from transport.socket_options import CurveRole, SocketLimits, apply_curve, apply_limits
from transport.socket_reader import SocketReader


class LinkEvent(enum.Enum):
    """What became of the connection."""

    CONNECTED = "connected"
    """The CURVE handshake is done: the other side holds the key that was expected of it."""
    DISCONNECTED = "disconnected"
    HANDSHAKE_FAILED = "handshake failed"
    """Not the expected key, not ZeroMQ, or cut in the middle; libzmq tries again."""
    REFUSED = "refused"
    """The other side's ZAP said no; libzmq does not try again."""


_LINK_EVENTS = {
    SocketEvent.READY: LinkEvent.CONNECTED,
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
        *,
        on_message: Callable[[bytes], None],
        on_event: Callable[[LinkEvent], None],
        source: HostPort | None = None,
        reconnect: Reconnect = Reconnect(),
    ) -> None:
        self._context = context
        self._endpoint = (
            address.zmq_endpoint if source is None else f"{source.zmq_endpoint};{address}"
        )
        self._role = role
        self._limits = limits
        self._on_message = on_message
        self._on_link_event = on_event
        self._reconnect = reconnect

    async def __aenter__(self) -> "ClientSocket":
        """Raises :class:`TransportError` when libzmq rejects the address (a bad host name)."""
        loop = asyncio.get_running_loop()
        self._socket = self._context.socket(zmq.DEALER)
        try:
            apply_limits(self._socket, self._limits)
            apply_curve(self._socket, self._role)
            self._socket.setsockopt(zmq.RECONNECT_IVL, round(self._reconnect.first_s * 1000))
            self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, round(self._reconnect.most_s * 1000))
            # Nothing is queued for a connection that is not there: send says so instead.
            self._socket.setsockopt(zmq.IMMEDIATE, 1)
            self._monitor = SocketMonitor(loop, self._context, self._socket, self._on_event)
            self._socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            self._socket.close()
            raise TransportError(f"cannot connect to {self._endpoint}: {error.strerror}") from error
        self._reader = SocketReader(loop, self._socket, self._receive_one)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._reader.close()
        self._monitor.close()
        self._socket.close()

    def send(self, frame: bytes) -> bool:
        """Queue ``frame``, without ever waiting. False: not connected, or the queue is full."""
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            self._reader.check()
        return True

    def _receive_one(self) -> None:
        frames = self._socket.recv_multipart(zmq.NOBLOCK)
        if len(frames) == 1:
            self._on_message(frames[0])

    def _on_event(self, event: SocketEvent, value: int) -> None:
        link_event = _LINK_EVENTS.get(event)
        if link_event is not None:
            self._on_link_event(link_event)
