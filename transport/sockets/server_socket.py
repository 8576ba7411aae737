"""The socket that others connect to: a ZeroMQ ROUTER with CURVE on an asyncio event loop.

Invariants: nothing reaches the owner from a connection that ZAP did not admit; a sender is known by
its CURVE key (``User-Id``), never by its routing id, which it chooses itself; a route is good for
answering on the same connection and is told to nobody (a stranger that knew the next ids of libzmq
could make it abort); sending never waits.

A server that says everything back, and a client of it:

>>> from transport.curve import CurveKeys
>>> from transport.sockets.client_socket import ClientSocket
>>> from transport.sockets.context import make_context
>>> from transport.sockets.socket_options import CurveClientRole
>>> from transport.sockets.zap import ZapAuthenticator
>>> class Echo:
...     def frame_received(self, route, curve_key, remote_ip, frame):
...         self.socket.send(route, frame)
...     def connection_lost(self, route):
...         pass
>>> class Caller:
...     def link_changed(self, event):
...         self.socket.send(b"hello")
...     def frame_received(self, frame):
...         self.heard.set_result(frame.bytes)
>>> async def admit_everyone(curve_key, remote_ip):
...     return True
>>> async def example(echo, caller, limits):
...     caller.heard = asyncio.get_running_loop().create_future()
...     keys, here = CurveKeys.generate(), HostPort("127.0.0.1", 0)
...     async with contextlib.AsyncExitStack() as stack:
...         context = stack.enter_context(make_context())
...         zap = await stack.enter_async_context(ZapAuthenticator(context))
...         zap.add_domain("echo", admit_everyone)
...         role = CurveServerRole(keys, "echo")
...         echo.socket = await stack.enter_async_context(
...             ServerSocket(context, here, role, limits, echo))
...         role = CurveClientRole(CurveKeys.generate(), server_key=keys.public)
...         caller.socket = await stack.enter_async_context(
...             ClientSocket(context, echo.socket.address, role, limits, caller))
...         return await caller.heard
>>> asyncio.run(example(Echo(), Caller(), SocketLimits(max_message_bytes=1024)))
b'hello'
"""

import asyncio
import contextlib
import errno
import logging
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import urlsplit

import zmq

from protocol.errors import ConfigError, TransportError
from protocol.uri import HostPort
from transport.address import EVERY_ADDRESS, plain_ip, resolve
from transport.backoff import Backoff
from transport.curve import key_from_z85
from transport.sockets.async_socket import AsyncSocket
from transport.sockets.listening_socket import open_listening_socket
from transport.sockets.socket_monitor import SocketEvent
from transport.sockets.socket_options import CurveServerRole, SocketLimits, wire_bytes

FIRST_RETRY_S = 1.0
MOST_RETRY_S = 30.0

_log = logging.getLogger(__name__)


class ServerOwner(Protocol):
    """Serves those that connect. Called from the event loop; returns at once."""

    def frame_received(
        self, route: bytes, curve_key: bytes, remote_ip: str, frame: zmq.Frame
    ) -> None:
        """A message came. The frame is libzmq's own, and may be passed on without a copy."""

    def connection_lost(self, route: bytes) -> None:
        """A connection over which messages came has ended."""


@dataclass(slots=True)
class ServerStatistics:
    """Counts since the socket was opened."""

    received: int = 0
    received_bytes: int = 0
    sent: int = 0
    sent_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Dropped messages by reason: received ``multipart``, ``anonymous``; to send ``peer_gone``,
    ``queue_full``."""
    cut_off: Counter[str] = field(default_factory=Counter)
    """Connections ended by us, by reason; see :class:`ConnectionTable`."""
    handshakes_failed: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """Messages that made a handler raise, by the error's type; see :class:`Border`."""


class ListenError(ConfigError):
    """An address cannot be listened on."""

    def __init__(self, address: HostPort, error: zmq.ZMQError | OSError) -> None:
        super().__init__(f"cannot listen on {address}: {error.strerror}; choose another address")
        self.address = address
        self.errno = error.errno
        self.reason = error.strerror


class ServerSocket:
    """A bound ROUTER. An async context manager; ``address`` is where it listens, real port."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        listen: HostPort,
        role: CurveServerRole,
        limits: SocketLimits,
        owner: ServerOwner,
        *,
        also_listen: Sequence[HostPort] = (),
        shares_port: bool = False,
    ) -> None:
        """``also_listen``: further addresses of the same socket. ``shares_port``: sockets of ours
        may connect from the ports listened on."""
        self._context = context
        self._listen = (listen, *also_listen)
        self._role = role
        self._limits = limits
        self._owner = owner
        self._shares_port = shares_port
        self.statistics = ServerStatistics()
        self.address = listen

    async def __aenter__(self) -> "ServerSocket":
        """Raises :class:`ListenError` when an address cannot be listened on, and
        :class:`ConfigError` when its name is not known."""
        listen = [await _resolved(address) for address in self._listen]
        self._inner = AsyncSocket(self._context, zmq.ROUTER, self._role, self._limits, self)
        self.statistics.cut_off = self._inner.connections.cut_off
        self.statistics.errors = self._inner.border.errors
        # Sending to nobody is an error to be counted, not a silent loss.
        self._inner.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            self._ports = [self._bind(address) for address in listen]
        except ConfigError:
            self._inner.close()
            raise
        self.address = HostPort(listen[0].host, self._ports[0])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inner.close()

    @property
    def connection_count(self) -> int:
        """Connections open now, handshake done or not."""
        return len(self._inner.connections)

    def send(self, route: bytes, frame: bytes | zmq.Frame) -> bool:
        """Queue ``frame`` for the connection behind ``route``, without ever waiting.

        False: its queue is full or it is gone; the frame is dropped and counted.
        """
        try:
            self._inner.send(frame, route)
        except zmq.Again:
            self.statistics.dropped["queue_full"] += 1
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self.statistics.dropped["peer_gone"] += 1
            return False
        size = len(frame)
        self._inner.connections.sent(route, size)
        statistics = self.statistics
        statistics.sent += 1
        statistics.sent_bytes += size
        return True

    def disconnect(self, route: bytes, reason: str) -> None:
        """End the connection behind ``route``; counted under ``reason``.

        What is queued for it is lost. The other side may connect again.
        """
        self._inner.connections.disconnect(route, reason)

    def leaves_more(self, route: bytes, most: int) -> bool:
        """Whether the other side leaves more than ``most`` bytes of what was sent to ``route``."""
        return self._inner.connections.leaves_more(route, most)

    def _bind(self, address: HostPort) -> int:
        """Returns the port, which is another one than asked for if that was 0."""
        if self._shares_port:
            listening = open_listening_socket(address)
            address = HostPort(*listening.getsockname()[:2])
            self._inner.socket.setsockopt(zmq.USE_FD, listening.detach())
        try:
            self._inner.socket.bind(address.zmq_endpoint)
        except zmq.ZMQError as error:
            raise ListenError(address, error) from error
        bound = urlsplit(self._inner.socket.getsockopt_string(zmq.LAST_ENDPOINT))
        return bound.port or address.port

    def take_frames(self, route: bytes, frames: Sequence[zmq.Frame]) -> None:
        """See :class:`SocketOwner`."""
        last: Any = frames[-1]  # Of a property the package's types leave open what it is.
        try:
            user_id, address = last.get("User-Id"), plain_ip(last.get("Peer-Address"))
            descriptor = last.get(zmq.SRCFD)
        except zmq.ZMQError:
            self.statistics.dropped["anonymous"] += 1
            return
        connections = self._inner.connections
        connected = self._inner.is_open(descriptor) or connections.overtook(
            descriptor, address, self._ports
        )
        if connected:
            replaced = connections.delivered(descriptor, route, wire_bytes(frames))
            if replaced is not None:
                self.route_gone(replaced)
        if len(frames) == 1:
            statistics = self.statistics
            statistics.received += 1
            statistics.received_bytes += len(last)
            self._owner.frame_received(route, key_from_z85(user_id), address, last)
        else:
            # Nobody of ours sends such; the next one might be as long as memory lasts.
            self.statistics.dropped["multipart"] += 1
            self.disconnect(route, "multipart")
        if not connected:
            self.route_gone(route)

    def take_event(self, event: SocketEvent, value: int, _endpoint: str) -> None:
        """See :class:`SocketOwner`."""
        match event:
            case SocketEvent.DISCONNECTED:
                route = self._inner.connections.closed(value)
                if route is not None:
                    self.route_gone(route)
            case (
                SocketEvent.HANDSHAKE_BROKEN
                | SocketEvent.HANDSHAKE_VIOLATED
                | SocketEvent.HANDSHAKE_REFUSED
            ):
                self.statistics.handshakes_failed[event.name.lower()] += 1

    def route_gone(self, route: bytes) -> None:
        """See :class:`SocketOwner`."""
        self._owner.connection_lost(route)


async def check_listening(listen: HostPort) -> None:
    """Return if a :class:`ServerSocket` could listen there now, else raise what it would raise.

    For servers that open other sockets before that one: what is wrong with the address that was
    named is to be said first, and of that address.
    """
    address = await _resolved(listen)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family) as trial:  # There may be no IPv6 at all.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((address.host, address.port))
    except OSError as error:
        raise ListenError(listen, error) from error


async def until_listenable(listen: HostPort, stop: asyncio.Event) -> bool:
    """Wait until this machine has the address ``listen``, as long as that can come by itself: a VPN
    or a name server that is not up yet. False: ``stop`` was set before.

    Raises as :func:`check_listening` for what a person has to change.
    """
    backoff = Backoff(FIRST_RETRY_S, MOST_RETRY_S)
    said = False
    while not stop.is_set():
        try:
            await check_listening(listen)
        except ConfigError as error:
            if not _comes_by_itself(listen, error):
                raise
            if not said:
                _log.warning(
                    "cannot listen on %s: it is no address of this machine now; waiting for it",
                    listen,
                )
                said = True
        else:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(backoff.next_s()):
                await stop.wait()
    return False


def _comes_by_itself(listen: HostPort, error: ConfigError) -> bool:
    if isinstance(error, ListenError):
        return error.errno == errno.EADDRNOTAVAIL and listen.host not in EVERY_ADDRESS
    found: BaseException | None = error
    while found is not None and not isinstance(found, socket.gaierror):
        found = found.__cause__
    return found is not None and found.errno == socket.EAI_AGAIN


async def _resolved(listen: HostPort) -> HostPort:
    try:
        return (await resolve(listen))[0]
    except TransportError as error:
        raise ConfigError(f"cannot listen on {listen}: {error}") from error
