"""Sockets on loopback, and the ways of strangers."""

import gc
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zmq

from protocol.uri import HostPort
from tests.eventually import eventually
from transport.curve import CurveKeys
from transport.sockets.client_socket import ClientSocket, LinkEvent, Reconnect
from transport.sockets.server_socket import ServerSocket
from transport.sockets.socket_options import CurveClientRole, CurveServerRole, SocketLimits
from transport.sockets.zap import ZapAuthenticator

DOMAIN = "test"
ANY_PORT = HostPort("127.0.0.1", 0)
LIMITS = SocketLimits(max_message_bytes=64 * 1024, queue_messages=64)
SERVER = CurveKeys.generate()
ADMITTED = CurveKeys.generate()
STRANGER = CurveKeys.generate()

Context = zmq.Context[zmq.Socket[bytes]]


async def admit_known(curve_key: bytes, remote_ip: str) -> bool:
    return curve_key == ADMITTED.public


@dataclass
class Heard:
    """A client socket's owner: what came to it."""

    frames: list[bytes] = field(default_factory=list)
    events: list[LinkEvent] = field(default_factory=list)

    def frame_received(self, frame: zmq.Frame) -> None:
        self.frames.append(frame.bytes)

    def link_changed(self, event: LinkEvent) -> None:
        self.events.append(event)


@dataclass
class Served:
    """A server socket's owner: what came to it."""

    messages: list[tuple[bytes, bytes, str, bytes]] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)

    def frame_received(
        self, route: bytes, curve_key: bytes, remote_ip: str, frame: zmq.Frame
    ) -> None:
        self.messages.append((route, curve_key, remote_ip, frame.bytes))

    def connection_lost(self, route: bytes) -> None:
        self.gone.append(route)


@dataclass
class Client:
    """A client socket, and what came to it."""

    socket: ClientSocket
    frames: list[bytes] = field(default_factory=list)
    events: list[LinkEvent] = field(default_factory=list)

    async def connected(self) -> None:
        await eventually(lambda: LinkEvent.CONNECTED in self.events)

    async def received(self, count: int) -> list[bytes]:
        await eventually(lambda: len(self.frames) >= count)
        return self.frames[:count]


@dataclass
class Echo:
    """A server socket that answers each frame with itself, and what came to it."""

    context: Context
    server: ServerSocket
    zap: ZapAuthenticator
    messages: list[tuple[bytes, bytes, str, bytes]] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)

    @property
    def address(self) -> HostPort:
        return HostPort("127.0.0.1", self.server.address.port)

    def dealer(self, keys: CurveKeys | None = ADMITTED) -> zmq.Socket[bytes]:
        """A plain pyzmq DEALER, to do with as a stranger likes; None: without CURVE."""
        dealer = self.context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        if keys is not None:
            dealer.setsockopt(zmq.CURVE_PUBLICKEY, keys.public_z85)
            dealer.setsockopt(zmq.CURVE_SECRETKEY, keys.secret_z85)
            dealer.setsockopt(zmq.CURVE_SERVERKEY, SERVER.public_z85)
        return dealer

    def raw(self) -> socket.socket:
        """A TCP connection that speaks whatever the test writes."""
        return socket.create_connection((self.address.host, self.address.port), timeout=5)

    @asynccontextmanager
    async def client(
        self, keys: CurveKeys = ADMITTED, source: HostPort | None = None
    ) -> AsyncIterator[Client]:
        heard = Heard()
        client = ClientSocket(
            self.context,
            self.address,
            CurveClientRole(keys, SERVER.public),
            LIMITS,
            heard,
            source=source,
            reconnect=Reconnect(0.05, 0.1),
        )
        async with client:
            yield Client(client, heard.frames, heard.events)

    async def still_serves(self) -> None:
        """An admitted client gets its answer."""
        async with self.client() as client:
            await client.connected()
            assert client.socket.send(b"still there?")
            assert await client.received(1) == [b"still there?"]


EchoMaker = Callable[..., AbstractAsyncContextManager[Echo]]


@pytest.fixture
def context() -> Iterator[Context]:
    with zmq.Context() as context:
        yield context


@pytest.fixture
def serve_echo(context: Context) -> EchoMaker:
    @asynccontextmanager
    async def serve(
        limits: SocketLimits = LIMITS,
        listen: HostPort = ANY_PORT,
        admit: Callable[[bytes, str], Awaitable[bool]] = admit_known,
        domain: str = DOMAIN,
    ) -> AsyncIterator[Echo]:
        class Answering(Served):
            def frame_received(
                self, route: bytes, curve_key: bytes, remote_ip: str, frame: zmq.Frame
            ) -> None:
                super().frame_received(route, curve_key, remote_ip, frame)
                server.send(route, frame.bytes)

        served = Answering()
        server = ServerSocket(context, listen, CurveServerRole(SERVER, domain), limits, served)
        async with ZapAuthenticator(context) as zap:
            zap.add_domain(DOMAIN, admit)
            async with server:
                yield Echo(context, server, zap, served.messages, served.gone)

    return serve


@pytest.fixture
async def echo(serve_echo: EchoMaker) -> AsyncIterator[Echo]:
    async with serve_echo() as echo:
        yield echo


def bytes_received(tcp: socket.socket) -> int:
    """How many bytes came over the connection so far: tcpi_bytes_received of linux/tcp.h."""
    info = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    received: int = struct.unpack_from("=128xQ", info)[0]
    return received


def rss_bytes() -> int:
    """What this process holds in memory now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def closed_within(connection: socket.socket, seconds: float) -> bool:
    """Whether the other side ends the connection in time; blocks, so call it in a thread."""
    deadline = time.monotonic() + seconds
    connection.settimeout(0.05)
    while time.monotonic() < deadline:
        try:
            if not connection.recv(65536):
                return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False
