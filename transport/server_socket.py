"""The socket that others connect to: a ZeroMQ ROUTER with CURVE on an asyncio event loop.

Invariants: nothing reaches ``on_message`` from a connection that ZAP did not admit; a sender is
known by its CURVE key (``User-Id``), never by its routing id, which it chooses itself; a route is
good for answering on the same connection and is told to nobody (who knew which ids libzmq gives out
next could make it abort); sending never waits.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlsplit

import zmq

from protocol.errors import ConfigError
from protocol.uri import HostPort
from transport.curve import key_from_z85
from transport.socket_monitor import SocketEvent, SocketMonitor
from transport.socket_options import CurveServerRole, SocketLimits, apply_curve, apply_limits
from transport.socket_reader import SocketReader
from transport.zap import plain_ip

OnMessage = Callable[[bytes, bytes, str, bytes], None]
"""``on_message(route, curve_key, remote_ip, frame)``."""


@dataclass(slots=True)
class ServerStatistics:
    """Counts since the socket was opened."""

    connections: int = 0
    """Open now, handshake done or not."""
    received: int = 0
    received_bytes: int = 0
    sent: int = 0
    sent_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """By reason: received ``multipart``, ``anonymous``; to send ``peer_gone``, ``queue_full``."""
    handshakes_failed: Counter[str] = field(default_factory=Counter)


class ServerSocket:
    """A bound ROUTER. An async context manager; ``address`` is where it listens, real port."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        listen: HostPort,
        role: CurveServerRole,
        limits: SocketLimits,
        on_message: OnMessage,
    ) -> None:
        self._context = context
        self._listen = listen
        self._role = role
        self._limits = limits
        self._on_message = on_message
        self.statistics = ServerStatistics()
        self.address = listen

    async def __aenter__(self) -> "ServerSocket":
        """Raises :class:`ConfigError` when the address cannot be listened on."""
        loop = asyncio.get_running_loop()
        self._socket = self._context.socket(zmq.ROUTER)
        try:
            apply_limits(self._socket, self._limits)
            apply_curve(self._socket, self._role)
            # Sending to nobody is an error to be counted, not a silent loss.
            self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            self._monitor = SocketMonitor(loop, self._context, self._socket, self._on_event)
            self._socket.bind(self._listen.zmq_endpoint)
        except zmq.ZMQError as error:
            self._socket.close()
            raise ConfigError(
                f"cannot listen on {self._listen}: {error.strerror}; choose another address"
            ) from error
        bound = urlsplit(self._socket.getsockopt_string(zmq.LAST_ENDPOINT))
        self.address = HostPort(self._listen.host, bound.port or self._listen.port)
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

    def send(self, route: bytes, frame: bytes) -> bool:
        """Queue ``frame`` for the connection behind ``route``, without ever waiting.

        False: its queue is full or it is gone; the frame is dropped and counted.
        """
        try:
            self._socket.send_multipart((route, frame), zmq.NOBLOCK)
        except zmq.Again:
            self.statistics.dropped["queue_full"] += 1
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self.statistics.dropped["peer_gone"] += 1
            return False
        finally:
            self._reader.check()
        self.statistics.sent += 1
        self.statistics.sent_bytes += len(frame)
        return True

    def _receive_one(self) -> None:
        route, *payload = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        if len(payload) != 1:
            self.statistics.dropped["multipart"] += 1
            return
        frame = payload[0]
        try:
            user_id, address = str(frame.get("User-Id")), str(frame.get("Peer-Address"))
        except zmq.ZMQError:
            self.statistics.dropped["anonymous"] += 1
            return
        self.statistics.received += 1
        self.statistics.received_bytes += len(frame)
        self._on_message(route.bytes, key_from_z85(user_id), plain_ip(address), frame.bytes)

    def _on_event(self, event: SocketEvent, value: int) -> None:
        match event:
            case SocketEvent.ACCEPTED:
                self.statistics.connections += 1
            case SocketEvent.DISCONNECTED:
                self.statistics.connections -= 1
            case (
                SocketEvent.HANDSHAKE_BROKEN
                | SocketEvent.HANDSHAKE_VIOLATED
                | SocketEvent.HANDSHAKE_REFUSED
            ):
                self.statistics.handshakes_failed[event.name.lower()] += 1
