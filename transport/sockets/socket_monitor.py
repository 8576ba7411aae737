"""What libzmq reports about a socket's connections: made, lost, refused."""

import asyncio
import contextlib
import enum
import secrets
from collections.abc import Callable

import zmq
from zmq.utils.monitor import parse_monitor_message

from transport.sockets.socket_reader import SocketReader


class SocketEvent(enum.IntEnum):
    """The events that are asked for."""

    ACCEPTED = zmq.EVENT_ACCEPTED
    CONNECTED = zmq.EVENT_CONNECTED
    CLOSED = zmq.EVENT_CLOSED
    READY = zmq.EVENT_HANDSHAKE_SUCCEEDED
    DISCONNECTED = zmq.EVENT_DISCONNECTED
    HANDSHAKE_BROKEN = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    HANDSHAKE_VIOLATED = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    HANDSHAKE_REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH


class SocketMonitor:
    """Calls ``on_event(event, value, endpoint)``; the value is a file descriptor or an error code,
    the endpoint the one that was connected or bound, as it was given.

    Not asked for: "accept failed". While file descriptors are short, libzmq repeats that in a busy
    loop, and its thread blocks when nobody takes the events away fast enough.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: "zmq.Context[zmq.Socket[bytes]]",
        socket: zmq.Socket[bytes],
        on_event: Callable[[SocketEvent, int, str], None],
    ) -> None:
        self._socket = socket
        self._on_event = on_event
        address = f"inproc://monitor-{secrets.token_hex(16)}"
        socket.monitor(address, sum(SocketEvent))
        try:
            self._events = context.socket(zmq.PAIR)
        except zmq.ZMQError:
            socket.disable_monitor()
            raise
        self._events.setsockopt(zmq.LINGER, 0)
        # No limit: at one, libzmq's I/O thread would wait for this process's event loop.
        self._events.setsockopt(zmq.RCVHWM, 0)
        self._events.connect(address)
        self._reader = SocketReader(loop, self._events, self._receive_one)

    def catch_up(self) -> None:
        """Handle now what was reported up to now."""
        with contextlib.suppress(zmq.Again):
            while True:
                self._receive_one()

    def close(self) -> None:
        """Stop; to be called before the monitored socket is closed."""
        self._reader.close()
        self._socket.disable_monitor()
        self._events.close()

    def _receive_one(self) -> None:
        message = parse_monitor_message(self._events.recv_multipart(zmq.NOBLOCK))
        self._on_event(
            SocketEvent(message["event"]), message["value"], message["endpoint"].decode()
        )
