"""A seeker of punched paths to one peer, and a peer that is played by the test. No connection is
made."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from types import TracebackType

import zmq

from daemon.net.path_kind import PathKind
from daemon.net.paths.maker import PathParts
from daemon.net.paths.path import Path, PathWish
from daemon.net.paths.probe_intervals import ProbeIntervals
from daemon.net.paths.punched.path import PunchedPath
from daemon.net.paths.punched.plan import PunchPlan
from daemon.net.paths.punched.port import PunchPort
from daemon.net.paths.punched.puncher import Puncher
from daemon.net.paths.punched.seeker import PunchedSeeker
from daemon.net.session.handshake import Channel
from daemon.net.signaling import SignalInbox, Signaling
from protocol.identity import PeerId
from protocol.peers.hello import Role
from protocol.peers.signal_messages import (
    LanesAnswer,
    LanesOffer,
    NextPort,
    PunchAnswer,
    PunchDeclined,
    PunchEnd,
    PunchOffer,
)
from protocol.statements.nat_behavior import TransportBehavior
from protocol.statements.nat_summary import NatSummary
from protocol.uri import HostPort
from tests.eventually import eventually
from tests.net.path_parts import parts_of, signaling_of
from tests.net.swarm_peers import Keys, in_order_of_id

LOW, HIGH = in_order_of_id(2, first=30)
OTHER = "another seeker"
PunchSignal = PunchOffer | PunchAnswer | PunchDeclined | LanesOffer | LanesAnswer


class Wire:
    """A rendezvous."""

    round_trip_s: float | None = 0.0
    state = "connected"

    def __init__(self) -> None:
        self.members: dict[PeerId, Signaling] = {}

    async def send_signal(self, swarm_id: bytes, to: PeerId, sealed: bytes) -> None:
        self.members[to].receive(sealed)


def joined(keys: Keys, wire: Wire) -> Signaling:
    signaling = wire.members[keys.peer_id] = signaling_of(keys, wire)
    return signaling


def end(next_port: NextPort, public: str = "203.0.113.1:5000") -> PunchEnd:
    return PunchEnd(public=public, hosts=(), next_port=next_port, port_step=0, signal_rtt_ms=0)


class Port(PunchPort):
    """Needs no STUN server to know what the outside sees."""

    def __init__(self, next_port: NextPort) -> None:
        super().__init__((), TransportBehavior(), ())
        self._next_port = next_port
        self.number = 40_000

    async def __aenter__(self) -> "Port":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def end(self, *, signal_rtt_s: float | None) -> PunchEnd:
        return end(self._next_port, "203.0.113.2:6000")


class Attempt(PunchedPath):
    """Connects to nobody, and lasts until it is given up."""

    async def run(self) -> None:
        await self._ended.wait()


class Around:
    """See :class:`Surroundings`."""

    stun_servers: Sequence[HostPort] = ()
    tcp_behavior = TransportBehavior()
    host_addresses: Sequence[str] = ()
    nat = NatSummary()


class PretendingPuncher(Puncher):
    """Its attempts are only noted."""

    def __init__(self, parts: PathParts, around: Around, next_port: NextPort) -> None:
        super().__init__(parts, around)
        self._pretended_parts = parts
        self._next_port = next_port
        self.made: list[Attempt] = []

    def make_port(self) -> Port:
        return Port(self._next_port)

    def make_path(self, plan: PunchPlan, wish: PathWish) -> Attempt:
        parts = self._pretended_parts
        attempt = Attempt(
            parts.context,
            parts.zap,
            parts.curve,
            plan,
            to=wish.record,
            is_server=True,
            owner=parts.owner,
            targets=parts.targets,
        )
        self.made.append(attempt)
        return attempt


class DirectPath:
    """Of another kind, and better."""

    kind = PathKind.DIRECT
    remote_address = "203.0.113.1:7000"
    channel = Channel(role=Role.INITIATOR, binding=b"", expected=None, remote_curve_key=None)

    def send(self, frame: bytes) -> bool:
        return True

    def close(self, reason: str) -> None: ...


class Scene:
    """The seeker with all around it, and the peer's end of the signals."""

    def __init__(self, puncher: PretendingPuncher, wish: PathWish, peer: Signaling) -> None:
        self.puncher = puncher
        self.wish = wish
        self.slot = puncher.heavy_slot
        self._peer = peer
        self._own_record = Keys(LOW.number).record()
        self.inbox: SignalInbox[PunchSignal] = peer.inbox(
            LOW.peer_id, PunchOffer, PunchAnswer, PunchDeclined, LanesOffer, LanesAnswer
        )

    async def say(self, body: PunchSignal) -> None:
        await self._peer.send(self._own_record, body)

    async def offer(self, *, has_heavy_slot: bool = True) -> None:
        await self.say(PunchOffer(bytes(16), end(NextPort.RANDOM), has_heavy_slot))

    async def hear(self) -> PunchSignal:
        async with asyncio.timeout(90):
            return await self.inbox.next()

    async def hear_put_off(self, reason: str) -> None:
        declined = await self.hear()
        assert isinstance(declined, PunchDeclined)
        assert declined.offers_later
        assert reason in declined.reason
        assert not self.wish.failures

    async def hear_offer(self) -> PunchOffer:
        offer = await self.hear()
        assert isinstance(offer, PunchOffer)
        return offer

    async def hear_lanes_offer(self) -> LanesOffer:
        offer = await self.hear()
        assert isinstance(offer, LanesOffer)
        return offer

    def find(self, *paths: Path) -> None:
        """The session uses them from now on."""
        self.wish.paths |= {*paths}
        self.wish.notify()

    def want(self, count: int) -> None:
        """So many are wanted from now on."""
        self.wish.lanes = {PathKind.PUNCHED: count}
        self.wish.notify()


@asynccontextmanager
async def seeking(
    *, nat: NatSummary | None = None, next_port: NextPort = NextPort.FIXED
) -> AsyncIterator[Scene]:
    """The lower id seeks a path to a peer behind a random NAT."""
    wire, around = Wire(), Around()
    around.nat = nat or NatSummary()
    with zmq.Context() as context:
        parts = parts_of(LOW, context, signaling=joined(LOW, wire))
        puncher = PretendingPuncher(parts, around, next_port)
        wish = PathWish(HIGH.record())
        wish.note_seen("203.0.113.1", parts.clock.monotonic())
        scene = Scene(puncher, wish, joined(HIGH, wire))
        seeker = PunchedSeeker(puncher, wish, ProbeIntervals(Random(1)))
        with scene.inbox:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(seeker.run())
                yield scene
                running.cancel()


async def answer_next_offer(scene: Scene) -> Attempt:
    """Take part in what the seeker proposes; its attempt."""
    count = len(scene.puncher.made)
    offer = await scene.hear_offer()
    await scene.say(PunchAnswer(offer.attempt, end(NextPort.FIXED)))
    await eventually(lambda: len(scene.puncher.made) == count + 1)
    return scene.puncher.made[-1]
