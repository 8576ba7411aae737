"""Relays and clients on loopback, with real sockets."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import TypeVar, cast

import zmq

from daemon.server import ServerOptions
from protocol.identity import Identity, PeerId
from protocol.servers.relay_messages import (
    FrameKind,
    FromClient,
    FromRelay,
    decode_from_relay,
    encode_control,
)
from protocol.uri import HostPort, ServerUri
from relay.client.client import IncomingCall, RelayClient, RelayState
from relay.client.link import RelayLink
from relay.server.limits import RelayLimits
from tests.eventually import eventually
from tests.live_server import server_in_process, unused_address
from transport.curve import CurveKeys, key_to_z85

SWARM = b"s" * 32

M = TypeVar("M", bound=FromRelay)


@asynccontextmanager
async def serving(
    state_dir: Path,
    listen: HostPort | None = None,
    *,
    limits: RelayLimits | None = None,
    also_listen: Sequence[HostPort] = (),
) -> AsyncIterator[ServerUri]:
    """A relay in this process."""
    options = ServerOptions(
        listen or unused_address(),
        state_dir,
        relay=limits or RelayLimits(),
        also_listen=tuple(also_listen),
    )
    async with server_in_process(options) as uri:
        yield uri


@dataclass
class LinkEnd:
    """A link, and what came of it."""

    link: RelayLink
    frames: list[bytes] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    room: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.link.start(self)

    def frame_received(self, frame: bytes) -> None:
        self.frames.append(frame)

    def link_writable(self) -> None:
        self.room.set()

    def link_closed(self, reason: str) -> None:
        self.closed.append(reason)

    async def send_all(self, frames: list[bytes]) -> None:
        for frame in frames:
            while not self.link.send(frame):
                assert self.link.is_open
                self.room.clear()
                await self.room.wait()


@dataclass
class Told:
    """A client's user: whom it talks to, and what it was told."""

    knows: dict[bytes, PeerId] = field(default_factory=dict)
    incoming: list[LinkEnd] = field(default_factory=list)
    states: list[RelayState] = field(default_factory=list)

    async def who_calls(self, call: IncomingCall) -> PeerId | None:
        return self.knows.get(call.curve_key)

    def link_opened(self, link: RelayLink, relay: HostPort) -> None:
        self.incoming.append(LinkEnd(link))

    def state_changed(self, state: RelayState) -> None:
        self.states.append(state)


@dataclass
class LivePeer:
    """Keys, a client, and the links that others opened to it."""

    client: RelayClient
    identity: Identity
    curve: CurveKeys
    incoming: list[LinkEnd]
    knows: dict[bytes, PeerId]
    """Whom it talks to: identities by CURVE key."""
    states: list[RelayState]

    async def ready(self) -> None:
        await eventually(lambda: self.client.state is RelayState.READY)

    async def link_to(self, other: "LivePeer") -> tuple[LinkEnd, LinkEnd]:
        """An open link: this peer's end, and the other's."""
        other.knows[self.curve.public] = self.identity.peer_id
        before = len(other.incoming)
        link = await self.client.open_link(
            SWARM, other.identity.peer_id, curve_key=other.curve.public
        )
        await eventually(lambda: len(other.incoming) > before)
        return LinkEnd(link), other.incoming[-1]


@asynccontextmanager
async def connected(
    uri: ServerUri, *, curve: CurveKeys | None = None, identity: Identity | None = None
) -> AsyncIterator[LivePeer]:
    """A client of the relay, not necessarily taken in yet."""
    identity = identity or Identity.generate()
    curve = curve or CurveKeys.generate()
    told = Told()
    async with RelayClient(uri, identity, curve, told) as client:
        yield LivePeer(client, identity, curve, told.incoming, told.knows, told.states)


class RawSocket:
    """A bare ZeroMQ socket at the relay, in the hands of someone who keeps no rules."""

    def __init__(self, uri: ServerUri, *, queue_messages: int = 1000) -> None:
        self.curve = CurveKeys.generate()
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, queue_messages)
        self.socket.setsockopt(zmq.RCVBUF, 16 * 1024)
        self.socket.setsockopt(zmq.CURVE_SERVERKEY, key_to_z85(uri.key))
        self.socket.setsockopt(zmq.CURVE_PUBLICKEY, self.curve.public_z85)
        self.socket.setsockopt(zmq.CURVE_SECRETKEY, self.curve.secret_z85)
        self.socket.connect(uri.address.zmq_endpoint)

    def __enter__(self) -> "RawSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self._context.term()

    def say(self, message: FromClient) -> None:
        self.socket.send(encode_control(message))

    async def expect(self, kind: type[M] | UnionType) -> M:
        """The next message of this kind (or of one of these); all else is let go."""
        while True:
            frame = await self.receive()
            if frame[0] == FrameKind.CONTROL:
                message = decode_from_relay(frame)
                if isinstance(message, kind):
                    return cast(M, message)

    async def receive(self) -> bytes:
        await eventually(lambda: bool(self.socket.poll(0)))
        return self.socket.recv(zmq.NOBLOCK)
