"""When a peer takes part in an attempt with many ports, and when it puts it off; when it makes more
paths than one. One seeker, and a peer that is played by the test. No connection is made."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from random import Random
from types import TracebackType

import pytest
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
from protocol.errors import TransportError
from protocol.identity import PeerId
from protocol.peers.hello import Role
from protocol.peers.signal_messages import (
    NextPort,
    NoOtherMachineError,
    PunchAnswer,
    PunchDeclined,
    PunchEnd,
    PunchOffer,
    check_punch_end,
)
from protocol.statements.nat_behavior import Dependence, TransportBehavior
from protocol.statements.nat_summary import NatSummary, TransportSummary
from protocol.uri import HostPort
from tests.eventually import eventually
from tests.net.path_parts import parts_of, signaling_of
from tests.net.swarm_peers import Keys, in_order_of_id

LOW, HIGH = in_order_of_id(2, first=30)
OTHER = "another seeker"
PunchSignal = PunchOffer | PunchAnswer | PunchDeclined


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
            LOW.peer_id, PunchOffer, PunchAnswer, PunchDeclined
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

    def find(self, path: Path) -> None:
        """The session uses it from now on."""
        self.wish.paths |= {path}
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


async def test_peer_that_keeps_its_slot_is_answered_and_the_own_one_is_taken() -> None:
    async with seeking() as scene:
        await scene.offer()
        assert isinstance(await scene.hear(), PunchAnswer)
        await eventually(lambda: len(scene.puncher.made) == 1)
        assert not scene.slot.is_free
        scene.find(scene.puncher.made[0])
        await eventually(lambda: scene.slot.is_free)
        assert not scene.wish.failures


async def test_peer_that_keeps_no_slot_is_put_off_and_gets_an_offer_at_once() -> None:
    async with seeking() as scene:
        await scene.offer(has_heavy_slot=False)
        await scene.hear_put_off("many ports")
        offer = await scene.hear_offer()
        assert offer.has_heavy_slot
        assert not scene.puncher.made


async def test_peer_is_put_off_while_the_slot_is_taken_and_then_gets_an_offer() -> None:
    async with seeking() as scene:
        scene.slot.take(OTHER)
        await scene.offer()
        await scene.hear_put_off("another attempt")
        await scene.offer()  # It may ask again.
        await scene.hear_put_off("another attempt")
        scene.slot.release(OTHER)
        assert (await scene.hear_offer()).has_heavy_slot


async def test_being_put_off_is_no_failure_and_frees_the_slot() -> None:
    async with seeking(next_port=NextPort.RANDOM) as scene:
        offer = await scene.hear_offer()
        assert offer.has_heavy_slot
        await scene.say(PunchDeclined(offer.attempt, "busy", offers_later=True))
        await eventually(lambda: scene.slot.is_free)
        await scene.say(PunchOffer(bytes(16), end(NextPort.FIXED), has_heavy_slot=True))
        assert isinstance(await scene.hear(), PunchAnswer)
        assert not scene.wish.failures


async def test_silent_peer_keeps_the_slot_no_longer_than_an_answer_takes() -> None:
    async with seeking(next_port=NextPort.RANDOM) as scene:
        await scene.hear_offer()
        assert not scene.slot.is_free
        await eventually(lambda: scene.slot.is_free)
        assert "did not answer" in scene.wish.failures[PathKind.PUNCHED]


async def test_many_ports_wait_for_dialling_where_it_is_likely_to_succeed() -> None:
    lets_in = TransportSummary(reachable=True, filtering=Dependence.ENDPOINT_INDEPENDENT)
    async with seeking(nat=NatSummary(public_host="203.0.113.2", udp=lets_in)) as scene:
        await scene.offer()
        await scene.hear_put_off("direct path soon")
        scene.find(DirectPath())
        await scene.offer()
        await scene.hear_put_off("there is a direct path")
        assert not scene.puncher.made


async def test_attempt_with_many_ports_ends_when_there_is_a_direct_path() -> None:
    async with seeking() as scene:
        await scene.offer()
        assert isinstance(await scene.hear(), PunchAnswer)
        await eventually(lambda: len(scene.puncher.made) == 1)
        scene.find(DirectPath())
        await eventually(lambda: scene.slot.is_free)
        assert scene.puncher.made[0].has_ended
        assert not scene.wish.failures


async def test_offer_right_after_an_attempt_with_many_ports_is_put_off() -> None:
    async with seeking() as scene:
        await scene.offer()
        assert isinstance(await scene.hear(), PunchAnswer)
        await scene.offer()
        await scene.hear_put_off("a moment ago")
        assert len(scene.puncher.made) == 1


@pytest.mark.parametrize("has_heavy_slot", [True, False])
async def test_attempt_with_one_port_needs_no_slot(has_heavy_slot: bool) -> None:
    async with seeking() as scene:
        scene.slot.take(OTHER)
        await scene.say(PunchOffer(bytes(16), end(NextPort.FIXED), has_heavy_slot))
        assert isinstance(await scene.hear(), PunchAnswer)
        await eventually(lambda: len(scene.puncher.made) == 1)


async def answer_next_offer(scene: Scene) -> Attempt:
    """Take part in what the seeker proposes; its attempt."""
    count = len(scene.puncher.made)
    offer = await scene.hear_offer()
    await scene.say(PunchAnswer(offer.attempt, end(NextPort.FIXED)))
    await eventually(lambda: len(scene.puncher.made) == count + 1)
    return scene.puncher.made[-1]


async def test_paths_are_proposed_beside_the_first_while_more_are_wanted_and_there_is_room() -> (
    None
):
    async with seeking() as scene:
        places = scene.puncher.lanes
        scene.find(await answer_next_offer(scene))
        with ExitStack() as stack:
            while places.has_room(beside=1):
                stack.enter_context(places.taken())
            scene.wish.lanes = {PathKind.PUNCHED: 3}
            scene.wish.notify()
            await scene.say(PunchOffer(bytes(16), end(NextPort.FIXED), has_heavy_slot=True))
            declined = await scene.hear()
            assert isinstance(declined, PunchDeclined)
            assert "no room" in declined.reason
            assert not declined.offers_later
        scene.wish.notify()
        attempts = [await answer_next_offer(scene)]
        scene.find(attempts[0])
        await scene.say(PunchDeclined((await scene.hear_offer()).attempt, "no", offers_later=False))
        attempts.append(await answer_next_offer(scene))  # It is tried again.
        scene.find(attempts[1])
        assert not scene.wish.lacks_lane(PathKind.PUNCHED)
        assert not scene.wish.failures
        for attempt in attempts:
            attempt.give_up("it broke")
            scene.wish.paths -= {attempt}
        scene.wish.notify()
        scene.find(await answer_next_offer(scene))
        assert not scene.wish.failures


async def test_path_that_is_lost_while_more_are_wanted_is_looked_for_as_ever() -> None:
    async with seeking() as scene:
        first = await answer_next_offer(scene)
        scene.find(first)
        scene.wish.lanes = {PathKind.PUNCHED: 2}
        scene.wish.notify()
        await scene.say(PunchDeclined((await scene.hear_offer()).attempt, "no", offers_later=False))
        first.give_up("it broke")
        scene.wish.paths = frozenset()
        scene.wish.notify()
        scene.find(await answer_next_offer(scene))


def test_log_tells_of_no_punched_path_where_nobody_needs_one() -> None:
    wish = PathWish(HIGH.record())
    with pytest.raises(NoOtherMachineError) as same_machine:
        check_punch_end(end(NextPort.FIXED, "127.0.0.1:5000"))
    nobody_there = TransportError("the peer did not say hello")
    assert not wish.is_news(PathKind.PUNCHED, same_machine.value)
    assert wish.is_news(PathKind.PUNCHED, nobody_there)
    wish.note_failure(PathKind.PUNCHED, str(nobody_there))
    assert not wish.is_news(PathKind.PUNCHED, nobody_there)
    assert wish.is_news(PathKind.ICE, nobody_there)
    wish.paths |= {DirectPath()}
    assert not wish.is_news(PathKind.ICE, nobody_there)
