"""A peer with a valid invite that speaks the real protocol over the real wire, and lies in it.

Sessions, rendezvous and signatures are p2pd's own; what is offered is up to the test.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import msgspec
import zmq

from daemon.net.discovery import Discovery
from daemon.net.network import PeerNetwork
from daemon.net.own_record import OwnRecord
from daemon.net.peers.observer import NoReader
from daemon.net.reach import Sockets
from daemon.net.refusals import Refusals
from protocol.codec import decode, encode
from protocol.envelope import Domain, seal_envelope
from protocol.identity import Identity, PeerId
from protocol.merkle import CHUNK_BYTES, leaves_of, merkle_root
from protocol.peers.chunk_frame import encode_chunk
from protocol.peers.peer_messages import (
    ChunkRequest,
    PeerMessage,
    Standing,
    UpdateHeader,
    UpdateOffer,
    Vouch,
)
from protocol.statements.admission import AdmissionBook, prove_admission
from protocol.statements.invite import Invite
from protocol.statements.peer_record import PeerRecord
from protocol.statements.sequence import SequenceCounter
from protocol.statements.swarm import Swarm, open_statement
from protocol.uri import HostPort
from rendezvous import RendezvousClient
from tests.net.swarm_peers import Around
from transport.clock import Clock
from transport.curve import CurveKeys
from transport.sockets.zap import ZapAuthenticator

SIGNATURE_PREFIX = b"p2pd signed envelope\x00"
SIGNER = 2
"""Place of the signer in an envelope's body."""


@dataclass(frozen=True, slots=True)
class Here:
    """Where the honest peers are: an update of the round that they train now says so."""

    round: int
    base: bytes


@dataclass
class HostilePeer(NoReader):
    """Made by :func:`hostile_peer`."""

    name: str
    swarm: Swarm
    token_secret: bytes
    identity: Identity = field(default_factory=Identity.generate)
    standings: dict[PeerId, Standing] = field(default_factory=dict)
    """What each honest peer last said of itself."""
    on_standing: Callable[[PeerId, Standing], None] = lambda peer, standing: None
    network: PeerNetwork = field(init=False)
    _blobs: dict[bytes, bytes] = field(default_factory=dict)
    _sequence: int = 0

    @property
    def peer_id(self) -> PeerId:
        return self.identity.peer_id

    @property
    def proof(self) -> bytes:
        """Its admission, which is in order."""
        return prove_admission(self.token_secret, self.swarm.swarm_id, self.peer_id)

    async def find_here(self, count: int, within_s: float = 90.0) -> Here:
        """Where so many peers stand, once they all say the same."""
        async with asyncio.timeout(within_s):
            while True:
                places = {
                    Here(standing.round + 1, standing.base)
                    for standing in self.standings.values()
                    if standing.started
                }
                if len(self.standings) >= count and len(places) == 1:
                    return places.pop()
                await asyncio.sleep(0.02)

    def stand(self, place: Here) -> None:
        """Say, as an honest peer does, that it trains the round there."""
        vouch = seal_envelope(
            self.identity,
            Domain.STATE,
            encode(Vouch(round=place.round - 1, base=place.base)),
            swarm=self.swarm.swarm_id,
            sequence=1,
        )
        standing = Standing(
            round=place.round - 1,
            base=place.base,
            contributors=1,
            started=True,
            ready=True,
            vouch=vouch,
        )
        self.tell(standing)

    def tell(self, message: PeerMessage, *, only: PeerId | None = None) -> None:
        """Send a message to one peer or all."""
        for peer in self.network.live_peers() if only is None else (only,):
            assert self.network.send(peer, encode(message))

    def offer(
        self,
        place: Here,
        content: bytes,
        *,
        served: bytes | None = None,
        signer: Identity | None = None,
        swarm_id: bytes | None = None,
        size_bytes: int | None = None,
        sample_count: int = 10,
    ) -> UpdateOffer:
        """An update with that content; everything else is in order unless said otherwise.

        ``served``: what is sent to those who fetch it.
        """
        chunks = [content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)]
        leaves = tuple(leaves_of(chunks))
        root = merkle_root(leaves)
        self._blobs[root] = content if served is None else served
        header = UpdateHeader(
            round=place.round,
            base=place.base,
            root=root,
            size_bytes=len(content) if size_bytes is None else size_bytes,
            sample_count=sample_count,
            loss=0.5,
        )
        self._sequence += 1
        envelope = seal_envelope(
            signer or self.identity,
            Domain.UPDATE,
            encode(header),
            swarm=self.swarm.swarm_id if swarm_id is None else swarm_id,
            sequence=self._sequence,
        )
        return UpdateOffer(header=envelope, leaves=leaves, proof=self.proof)

    def receive(self, peer: PeerId, data: bytes) -> None:
        """A control message: standings are noted, chunks are served."""
        message = decode(data, PeerMessage)
        match message:
            case Standing():
                self.standings[peer] = message
                self.on_standing(peer, message)
            case ChunkRequest(root, indexes):
                for index in indexes:
                    chunk = self._blobs[root][index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
                    self.network.send_bulk(peer, encode_chunk(root, index, chunk))


def resigned(envelope: bytes, *, signed_by: Identity, claims: Identity | bytes) -> bytes:
    """The envelope with another signer named in it, and signed by whoever."""
    fields = msgspec.msgpack.decode(msgspec.msgpack.decode(envelope)[0])
    fields[SIGNER] = claims if isinstance(claims, bytes) else claims.public_key
    body = msgspec.msgpack.encode(fields)
    return msgspec.msgpack.encode([body, signed_by.sign(SIGNATURE_PREFIX + body)])


def flip_bit(data: bytes, bit: int) -> bytes:
    """``data`` with one bit turned over."""
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


@contextlib.asynccontextmanager
async def hostile_peer(name: str, link: str, statement: bytes) -> AsyncIterator[HostilePeer]:
    """Connected to the rendezvous and, soon, to every peer of the swarm."""
    clock = Clock()
    invite = Invite.parse(link)
    swarm = open_statement(statement, swarm_id=invite.swarm_id, now_ms=clock.now_ms())
    peer = HostilePeer(name, swarm, invite.token_secret)
    curve = CurveKeys.from_secret(hashlib.sha256(peer.identity.public_key).digest())
    clients: list[RendezvousClient] = []
    network_refusals = Refusals(clock)
    async with contextlib.AsyncExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        zap = await stack.enter_async_context(ZapAuthenticator(context))
        says = PeerRecord(
            curve_key=curve.public, addresses=(), name=name, trains=True, proof=peer.proof
        )
        sequence = SequenceCounter(now_ms=clock.now_ms())
        network = peer.network = PeerNetwork(
            OwnRecord(peer.identity, swarm.swarm_id, says, sequence=sequence, clock=clock),
            AdmissionBook(swarm),
            Sockets(context, zap, curve, HostPort("127.0.0.1", 0)),
            Around(),
            refusals=network_refusals,
        )
        network.reader = peer
        discovery = Discovery(
            peer.peer_id,
            invite.swarm_id,
            clients,
            clock=clock,
            refusals=network_refusals,
        )
        client = RendezvousClient(invite.rendezvous[0], curve, discovery)
        clients.append(await stack.enter_async_context(client))
        await stack.enter_async_context(network)
        # No task group: one that a failed assertion passes through wraps it.
        searching = asyncio.ensure_future(discovery.run(network))
        try:
            yield peer
        finally:
            searching.cancel()
            await asyncio.wait({searching})
        await discovery.leave()
