"""Rendezvous servers and clients on loopback, with real sockets."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from daemon.server import ServerOptions
from protocol.codec import decode, encode
from protocol.identity import Identity
from protocol.servers.rendezvous_messages import FromServer, Notice, Request
from protocol.statements.peer_record import PeerRecord, seal_record
from protocol.uri import HostPort, ServerUri
from rendezvous.client.client import RendezvousClient
from rendezvous.client.connection import Timeouts
from rendezvous.server.limits import RegistryLimits
from tests.eventually import eventually
from tests.live_server import server_in_process, unused_address
from transport.clock import Clock
from transport.curve import CurveKeys, key_to_z85

SWARM = b"s" * 32


@asynccontextmanager
async def serving(
    state_dir: Path,
    listen: HostPort | None = None,
    *,
    limits: RegistryLimits | None = None,
    advertise: HostPort | None = None,
    store: str = "",
) -> AsyncIterator[ServerUri]:
    """A server in this process."""
    options = ServerOptions(
        listen or unused_address(),
        state_dir,
        rendezvous=limits or RegistryLimits(),
        advertise=advertise,
        store=store,
    )
    async with server_in_process(options) as uri:
        yield uri


@dataclass
class Told:
    """A client's user: what it was told."""

    notices: list[Notice] = field(default_factory=list)
    states: list[str] = field(default_factory=list)

    def notice_received(self, notice: Notice) -> None:
        self.notices.append(notice)

    def state_changed(self, state: str) -> None:
        self.states.append(state)

    def granted(self) -> None:
        """The client knows."""


@dataclass
class LivePeer:
    """Keys, a client, and what came to it."""

    client: RendezvousClient
    identity: Identity
    curve: CurveKeys
    notices: list[Notice] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    now_ms: int = field(default_factory=Clock().now_ms)
    """When its records are signed."""

    def record(self, sequence: int = 1, swarm: bytes = SWARM) -> bytes:
        content = PeerRecord(curve_key=self.curve.public, addresses=(), name="a peer", trains=True)
        return seal_record(
            self.identity,
            content,
            swarm=swarm,
            sequence=sequence,
            now_ms=self.now_ms,
        )

    async def announced(self) -> None:
        await eventually(
            lambda: self.client.state == "connected" and self.client.last_announce_s is not None
        )

    async def announced_since(self, moment: float) -> None:
        """The lease was renewed after ``moment`` (monotonic seconds)."""

        def renewed() -> bool:
            age_s = self.client.last_announce_s
            return age_s is not None and time.monotonic() - age_s > moment

        await eventually(renewed)


@asynccontextmanager
async def joined(
    uri: ServerUri, *, announce: bool = True, timeouts: Timeouts | None = None
) -> AsyncIterator[LivePeer]:
    """A peer whose client runs."""
    told = Told()
    curve, identity = CurveKeys.generate(), Identity.generate()
    async with RendezvousClient(uri, curve, told, timeouts=timeouts) as client:
        peer = LivePeer(client, identity, curve, told.notices, told.states)
        if announce:
            client.set_record(peer.record())
            await peer.announced()
        yield peer


class Stranger:
    """A DEALER that sends whatever the test wants."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        uri: ServerUri,
        routing_id: bytes | None = None,
    ) -> None:
        self.keys = keys = CurveKeys.generate()
        self.socket = context.socket(zmq.DEALER)
        if routing_id is not None:
            self.socket.setsockopt(zmq.ROUTING_ID, routing_id)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public_z85)
        self.socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret_z85)
        self.socket.setsockopt(zmq.CURVE_SERVERKEY, key_to_z85(uri.key))
        self._monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self.socket.connect(uri.address.zmq_endpoint)

    def is_cut_off(self, within_s: float = 0.0) -> bool:
        """Whether the server ended the connection at least once."""
        return self._monitor.poll(round(within_s * 1000)) != 0

    def has_mail(self) -> bool:
        return self.socket.poll(0) != 0

    def close(self) -> None:
        self.socket.disable_monitor()
        self._monitor.close()
        self.socket.close()

    def send(self, request: Request) -> None:
        self.socket.send(encode(request))

    async def reply(self) -> FromServer:
        """The next message from the server."""
        assert await asyncio.to_thread(self.socket.poll, 5000)
        reply: FromServer = decode(self.socket.recv(zmq.NOBLOCK), FromServer)
        return reply
