"""A ZeroMQ socket on an asyncio event loop, with its limits, CURVE role, monitor and guard."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import zmq

from protocol.errors import TransportError
from transport.border import Border
from transport.sockets.connection_table import SWEEP_INTERVAL_S, ConnectionTable
from transport.sockets.socket_monitor import SocketEvent, SocketMonitor
from transport.sockets.socket_options import CurveRole, SocketLimits, apply_curve, apply_limits
from transport.sockets.socket_reader import SocketReader

_MORE = zmq.NOBLOCK | zmq.SNDMORE
_send: Callable[..., object] = zmq.backend.Socket.send
"""What ``zmq.Socket`` makes of it costs as much again, for kinds of sockets that are not these."""

_log = logging.getLogger(__name__)


class SocketOwner(Protocol):
    """The server's or client's socket around an :class:`AsyncSocket`."""

    def take_frames(self, route: bytes, frames: Sequence[zmq.Frame]) -> None:
        """A message came by ``route``; a DEALER's messages all come by the empty one."""

    def take_event(self, event: SocketEvent, value: int, endpoint: str) -> None:
        """What the monitor reports; see :class:`SocketMonitor`."""

    def route_gone(self, route: bytes) -> None:
        """A connection over which messages came has ended, and the monitor said nothing of it."""


class AsyncSocket:
    """What :class:`ServerSocket` and :class:`ClientSocket` have in common.

    Made open but neither bound nor connected: its owner does that, and closes it.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        kind: int,
        role: CurveRole,
        limits: SocketLimits,
        owner: SocketOwner,
    ) -> None:
        """Raises :class:`TransportError` when the process has no descriptor or socket left."""
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._is_router = kind == zmq.ROUTER
        self.connections = ConnectionTable(limits)
        self.border = Border(_log)
        try:
            self.socket = context.socket(kind)
        except zmq.ZMQError as error:
            raise TransportError(_no_socket(error)) from error
        try:
            apply_limits(self.socket, limits)
            apply_curve(self.socket, role)
            self._monitor = SocketMonitor(self._loop, context, self.socket, self._handle_event)
        except (zmq.ZMQError, OSError) as error:
            self.socket.close(linger=0)
            raise TransportError(_no_socket(error)) from error
        self._reader = SocketReader(self._loop, self.socket, self._receive_one)
        self._timer = self._loop.call_later(SWEEP_INTERVAL_S, self._sweep)

    def close(self) -> None:
        """Close it; what is queued to be sent has :data:`LINGER_MS` left."""
        self._timer.cancel()
        self._reader.close()
        self._monitor.close()
        self.socket.close()

    def send(self, frame: bytes | zmq.Frame, route: bytes | None = None) -> None:
        """Send ``frame`` without waiting, to ``route`` if this is a ROUTER.

        The errors are those of ``zmq.Socket.send``. ``send_multipart`` would take 3 µs more for
        each message, half of them for the sum of two flags.
        """
        try:
            if route is not None:
                _send(self.socket, route, _MORE)
            # Sharing libzmq's own frame costs nothing; sharing bytes wakes pyzmq's thread for
            # each message, to release them.
            _send(self.socket, frame, zmq.NOBLOCK, not isinstance(frame, zmq.Frame))
        finally:
            self._reader.check()

    def connect(self, endpoint: str) -> None:
        """Connect; the errors are those of ``zmq.Socket.connect``."""
        try:
            self.socket.connect(endpoint)
        finally:
            self._reader.check()

    def disconnect(self, endpoint: str) -> None:
        """Give up what :meth:`connect` began."""
        try:
            self.socket.disconnect(endpoint)
        finally:
            self._reader.check()

    def is_open(self, descriptor: int) -> bool:
        """Whether the connection that a message came over is still open."""
        if self.connections.has(descriptor):
            return True
        # The message may have overtaken the report that the connection was made.
        self._monitor.catch_up()
        return self.connections.has(descriptor)

    def _receive_one(self) -> None:
        # What recv_multipart does, without asking the socket after each frame. A ROUTER gives a
        # route before each message; as bytes it comes in a third of the time of a frame.
        route = self.socket.recv(zmq.NOBLOCK) if self._is_router else b""
        frames = [self.socket.recv(zmq.NOBLOCK, copy=False)]
        while frames[-1].more:
            frames.append(self.socket.recv(zmq.NOBLOCK, copy=False))
        try:
            self._owner.take_frames(route, frames)
        except Exception as error:
            # One message must not end the service of all others, whatever it found to break.
            self.border.failed(error, _source_of(frames[-1]))

    def _handle_event(self, event: SocketEvent, value: int, endpoint: str) -> None:
        if event in (SocketEvent.ACCEPTED, SocketEvent.CONNECTED):
            self.connections.opened(value)
        self._owner.take_event(event, value, endpoint)

    def _sweep(self) -> None:
        self._timer = self._loop.call_later(SWEEP_INTERVAL_S, self._sweep)
        for route in self.connections.sweep(self._loop.time()):
            self._owner.route_gone(route)


def _source_of(frame: zmq.Frame) -> str:
    try:
        return str(frame.get("Peer-Address"))
    except zmq.ZMQError:
        return "an unknown address"


def _no_socket(error: zmq.ZMQError | OSError) -> str:
    return f"no socket to be had: {error.strerror} (the limit of open files, perhaps)"
