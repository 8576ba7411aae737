"""Peers with keys, of one swarm, and their networks on loopback."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

import zmq

from daemon.net.network import PeerNetwork
from daemon.net.own_record import OwnRecord
from daemon.net.paths.maker import PathMaker, PathParts
from daemon.net.reach import Sockets
from daemon.net.refusals import Refusals
from daemon.net.signaling import SignalCarrier
from daemon.net.view import View
from protocol.identity import Identity, PeerId
from protocol.statements.admission import NO_PROOF, AdmissionBook
from protocol.statements.peer_record import (
    NO_INSTANCE,
    PeerRecord,
    VerifiedRecord,
    open_record,
    seal_record,
)
from protocol.statements.sequence import SequenceCounter
from protocol.statements.swarm import (
    UNLIMITED,
    RoundSettings,
    Swarm,
    SwarmStatement,
    TaskReference,
    Token,
    seal_statement,
)
from protocol.uri import HostPort, ServerUri
from tests.free_ports import free_port
from transport.clock import Clock
from transport.curve import CurveKeys
from transport.sockets.zap import ZapAuthenticator


def make_swarm(
    *,
    version: int = 1,
    is_open: bool = True,
    banned: tuple[bytes, ...] = (),
    name: str = "digits",
    relays: tuple[ServerUri, ...] = (),
    tokens: tuple[bytes, ...] = (),
    settings: RoundSettings = RoundSettings(),  # noqa: B008 — it does not change.
) -> Swarm:
    """A swarm whose founder is nobody of the peers."""
    return seal_statement(
        Identity(sha256(b"founder").digest()),
        SwarmStatement(
            name=name,
            nonce=b"nonce",
            version=version,
            task=TaskReference(
                name="digits",
                builtin=True,
                file_sha256=b"",
                manifest_digest=bytes(32),
                seed=1,
                initial_state_digest=bytes(32),
            ),
            settings=settings,
            rendezvous=(),
            open=is_open,
            tokens=tuple(Token(key, 2**62, UNLIMITED) for key in tokens),
            members=(),
            banned=banned,
            relays=tuple(str(uri) for uri in relays),
        ),
    )


SWARM = make_swarm()


@dataclass
class Keys:
    """Who a test's peer is; equal numbers are equal peers, in any process."""

    number: int
    identity: Identity = field(init=False)
    curve: CurveKeys = field(init=False)

    def __post_init__(self) -> None:
        self.identity = Identity(sha256(b"identity %d" % self.number).digest())
        self.curve = CurveKeys.from_secret(sha256(b"curve %d" % self.number).digest())

    @property
    def peer_id(self) -> PeerId:
        return self.identity.peer_id

    def record(
        self,
        *addresses: str,
        curve_key: bytes | None = None,
        swarm: Swarm = SWARM,
        sequence: int = 1,
        instance: bytes = NO_INSTANCE,
    ) -> VerifiedRecord:
        """Its record, as the rendezvous would hand it out; old, so that each hello's is newer."""
        now_ms = Clock().now_ms()
        raw = seal_record(
            self.identity,
            PeerRecord(
                curve_key=curve_key or self.curve.public,
                addresses=addresses,
                name=f"peer {self.number}",
                trains=True,
                instance=instance,
            ),
            swarm=swarm.swarm_id,
            sequence=sequence,
            now_ms=now_ms,
        )
        return open_record(raw, swarm=swarm.swarm_id, now_ms=now_ms)


def in_order_of_id(count: int, *, first: int = 0) -> list[Keys]:
    """So many peers, lowest id first: the first of two is the one that dials at once."""
    return sorted((Keys(first + number) for number in range(count)), key=lambda key: key.peer_id)


@dataclass
class Around:
    """A network's reach: nothing but what the test says."""

    advertised: tuple[str, ...] = ()
    signal_carriers: Sequence[SignalCarrier] = ()
    find: Callable[[bytes], Awaitable[VerifiedRecord | None]] | None = None

    async def find_record(self, curve_key: bytes) -> VerifiedRecord | None:
        return None if self.find is None else await self.find(curve_key)

    def make_paths(self, parts: PathParts) -> Sequence[PathMaker]:
        return ()


def own_record_of(
    keys: Keys,
    clock: Clock,
    *,
    swarm: Swarm = SWARM,
    proof: bytes = NO_PROOF,
    trains: bool = True,
) -> OwnRecord:
    """What the peer of ``keys`` says of itself at first."""
    says = PeerRecord(
        curve_key=keys.curve.public,
        addresses=(),
        name=f"peer {keys.number}",
        trains=trains,
        proof=proof,
    )
    sequence = SequenceCounter(now_ms=clock.now_ms())
    return OwnRecord(keys.identity, swarm.swarm_id, says, sequence=sequence, clock=clock)


class Node:
    """A peer's network and all that it told."""

    def __init__(
        self,
        keys: Keys,
        network: PeerNetwork,
        refusals: Refusals,
        context: "zmq.Context[zmq.Socket[bytes]]",
        around: Around,
    ) -> None:
        self.around = around
        self.keys = keys
        self.network = network
        self.refusals = refusals
        self.context = context
        self.messages: list[tuple[PeerId, bytes]] = []
        self.bulk: list[tuple[PeerId, bytes]] = []
        self.log: list[str] = []
        self.on_bulk_room: Callable[[PeerId], object] = lambda peer_id: None
        self.on_bulk: Callable[[PeerId, bytes], object] = lambda peer, message: self.bulk.append(
            (peer, message)
        )
        network.reader = self

    # What the network tells (MessageReader)

    def receive(self, peer_id: PeerId, message: bytes) -> None:
        self.messages.append((peer_id, message))

    def receive_bulk(self, peer_id: PeerId, message: bytes) -> None:
        self.on_bulk(peer_id, message)

    def bulk_room_found(self, peer_id: PeerId) -> None:
        self.on_bulk_room(peer_id)

    def peer_up(self, peer_id: PeerId) -> None:
        self.log.append(f"up {peer_id}")

    def peer_down(self, peer_id: PeerId, reason: str) -> None:
        self.log.append(f"down {peer_id}: {reason}")

    @property
    def peer_id(self) -> PeerId:
        return self.keys.peer_id

    def record(self) -> VerifiedRecord:
        return open_record(
            self.network.signed_record(), swarm=SWARM.swarm_id, now_ms=Clock().now_ms()
        )

    def sees(self, *others: "Node") -> bool:
        """Whether exactly these are live."""
        return self.network.live_peers() == {other.peer_id for other in others}


def own_place() -> HostPort:
    """Where a network can listen, and again when it comes back."""
    return HostPort("127.0.0.1", free_port())


@asynccontextmanager
async def running(
    keys: Keys,
    *,
    swarm: Swarm = SWARM,
    proof: bytes = NO_PROOF,
    listen: HostPort | None = None,
    advertise: tuple[str, ...] = (),
    clock: Clock | None = None,
    signal_carriers: Sequence[SignalCarrier] = (),
    view: View | None = None,
) -> AsyncIterator[Node]:
    """A network of ``keys``."""
    clock = clock or Clock()
    refusals = Refusals(clock)
    with zmq.Context() as context:
        async with ZapAuthenticator(context) as zap:
            around = Around(advertise, signal_carriers)
            network = PeerNetwork(
                own_record_of(keys, clock, swarm=swarm, proof=proof),
                AdmissionBook(swarm),
                Sockets(context, zap, keys.curve, listen or own_place()),
                around,
                refusals=refusals,
                random=Random(keys.number),
                view=view,
            )
            node = Node(keys, network, refusals, context, around)
            async with network:
                yield node


def introduce(*nodes: Node) -> None:
    """Give each the records of the others."""
    for node in nodes:
        for other in nodes:
            if other is not node:
                node.network.add_record(other.record())
