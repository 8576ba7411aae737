"""Peers with keys, of one swarm, and their networks on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

import zmq

from daemon.net.network import PeerNetwork
from daemon.net.refusals import Refusals
from daemon.net.signaling import SignalCarrier
from protocol.identity import Identity, PeerId
from protocol.statements.admission import NO_PROOF, AdmissionBook
from protocol.statements.peer_record import (
    NO_INSTANCE,
    PeerRecord,
    VerifiedRecord,
    open_record,
    seal_record,
)
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
from transport.clock import Clock
from transport.curve import CurveKeys
from transport.sockets.zap import ZapAuthenticator

ANY_PORT = HostPort("127.0.0.1", 0)


async def eventually(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Return as soon as ``condition()`` holds."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 — conditions are of many kinds, few have an event.
            await asyncio.sleep(0.005)


def make_swarm(
    *,
    version: int = 1,
    is_open: bool = True,
    banned: tuple[bytes, ...] = (),
    name: str = "digits",
    relays: tuple[ServerUri, ...] = (),
    tokens: tuple[bytes, ...] = (),
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
            settings=RoundSettings(),
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


class Node:
    """A peer's network and all that it told."""

    def __init__(
        self,
        keys: Keys,
        network: PeerNetwork,
        refusals: Refusals,
        context: "zmq.Context[zmq.Socket[bytes]]",
    ) -> None:
        self.keys = keys
        self.network = network
        self.refusals = refusals
        self.context = context
        self.messages: list[tuple[PeerId, bytes]] = []
        self.bulk: list[tuple[PeerId, bytes]] = []
        self.log: list[str] = []
        network.on_message = lambda peer_id, message: self.messages.append((peer_id, message))
        network.on_bulk = lambda peer_id, message: self.bulk.append((peer_id, message))
        network.on_peer_up = lambda peer_id: self.log.append(f"up {peer_id}")
        network.on_peer_down = lambda peer_id, reason: self.log.append(f"down {peer_id}: {reason}")

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


@asynccontextmanager
async def running(
    keys: Keys,
    *,
    swarm: Swarm = SWARM,
    proof: bytes = NO_PROOF,
    listen: HostPort = ANY_PORT,
    advertise: tuple[str, ...] = (),
    clock: Clock | None = None,
    signal_carriers: Sequence[SignalCarrier] = (),
) -> AsyncIterator[Node]:
    """A network of ``keys``."""
    clock = clock or Clock()
    refusals = Refusals(clock)
    with zmq.Context() as context:
        async with ZapAuthenticator(context) as zap:
            network = PeerNetwork(
                swarm=swarm,
                identity=keys.identity,
                curve=keys.curve,
                listen=listen,
                advertise=advertise,
                admission=AdmissionBook(swarm),
                own_proof=proof,
                name=f"peer {keys.number}",
                trains=True,
                clock=clock,
                refusals=refusals,
                context=context,
                zap=zap,
                random=Random(keys.number),
                signal_carriers=signal_carriers,
            )
            node = Node(keys, network, refusals, context)
            async with network:
                yield node


def introduce(*nodes: Node) -> None:
    """Give each the records of the others."""
    for node in nodes:
        for other in nodes:
            if other is not node:
                node.network.add_record(other.record())
