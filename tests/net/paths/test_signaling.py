"""Signals between peers: who is heard, what is dropped, and what a rendezvous can do to them."""

import asyncio
from collections.abc import Callable

import pytest

from daemon.net.refusals import Refusals
from daemon.net.signaling import INBOX_MESSAGES, KEPT_S, Signaling
from protocol.errors import RemoteProtocolError, TransportError
from protocol.identity import PeerId
from protocol.peers.peer_signal import SIGNAL_LIFETIME_MS, SignalPayload, seal_peer_signal
from protocol.peers.signal_messages import (
    NextPort,
    PunchAnswer,
    PunchDeclined,
    PunchEnd,
    PunchOffer,
    TwinNotice,
    check_punch_end,
)
from protocol.statements.admission import AdmissionBook
from protocol.statements.peer_record import VerifiedRecord
from protocol.statements.swarm import Swarm
from tests.net.path_parts import own_record_of
from tests.net.swarm_peers import SWARM, Keys, make_swarm
from transport.clock import Clock


class MovedClock(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.moved_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.moved_s

    def own_ms(self) -> int:
        return super().own_ms() + round(self.moved_s * 1000)


class Wire:
    """A rendezvous that passes on to whom it is told to."""

    def __init__(self, *, works: bool = True) -> None:
        self.works = works
        self.round_trip_s: float | None = 0.02
        self.state = "connected" if works else "unreachable"
        self.passed: list[bytes] = []
        self.receivers: dict[PeerId, Callable[[bytes], None]] = {}

    async def send_signal(self, swarm_id: bytes, to: PeerId, sealed: bytes) -> None:
        if not self.works:
            raise TransportError("no way")
        self.passed.append(sealed)
        self.receivers[to](sealed)


class Speaker:
    """A peer that signals."""

    def __init__(
        self, number: int, *wires: Wire, swarm: Swarm = SWARM, clock: Clock | None = None
    ) -> None:
        self.keys = Keys(number)
        self.clock = clock or Clock()
        self.refusals = Refusals(self.clock)
        self.introduced: list[PeerId] = []
        self.known: set[PeerId] = set()
        self.twins: list[PeerId] = []
        self.is_welcome = True
        self.signaling = Signaling(
            own_record_of(self.keys, Clock(), "203.0.113.9:1"),
            self.keys.curve,
            admission=AdmissionBook(swarm),
            peers=self,
            twins=self,
            carriers=wires,
            clock=self.clock,
            refusals=self.refusals,
        )
        for wire in wires:
            wire.receivers[self.keys.peer_id] = self.signaling.receive

    def knows(self, peer_id: PeerId) -> bool:
        return peer_id in self.known

    def heard(self, record: VerifiedRecord) -> None:
        self.twins.append(record.peer_id)

    def hear(self, record: VerifiedRecord, seen_at: str) -> bool:
        self.introduced.append(record.peer_id)
        return self.is_welcome


def declined(number: int) -> PunchDeclined:
    return PunchDeclined(attempt=bytes([number]), reason="busy")


async def test_signal_reaches_the_inbox_for_its_kind() -> None:
    wire = Wire()
    one, two = Speaker(1, wire), Speaker(2, wire)
    with (
        two.signaling.inbox(one.keys.peer_id, PunchAnswer) as answers,
        two.signaling.inbox(one.keys.peer_id, PunchDeclined) as refusals,
    ):
        await one.signaling.send(two.keys.record(), declined(1))
        assert await refusals.next() == declined(1)
        assert not answers.offer(declined(2))
    assert two.introduced == [one.keys.peer_id]


async def test_rendezvous_reads_nothing_and_its_repetitions_are_dropped() -> None:
    wire = Wire()
    one, two = Speaker(1, wire), Speaker(2, wire)
    with two.signaling.inbox(one.keys.peer_id, PunchDeclined) as inbox:
        await one.signaling.send(two.keys.record(), declined(1))
        (sealed,) = wire.passed
        assert b"busy" not in sealed
        assert one.keys.identity.public_key not in sealed
        two.signaling.receive(sealed)
        await one.signaling.send(two.keys.record(), declined(2))
        assert [await inbox.next(), await inbox.next()] == [declined(1), declined(2)]
    assert two.refusals.total() == 0


async def test_signal_for_another_reader_or_changed_on_the_way_is_refused() -> None:
    wire = Wire()
    one, two, three = (Speaker(number, wire) for number in (1, 2, 3))
    await one.signaling.send(two.keys.record(), declined(1))
    (sealed,) = wire.passed
    three.signaling.receive(sealed)
    two.signaling.receive(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    assert three.refusals.by_code() == two.refusals.by_code() == {"signal": 1}


async def test_peer_that_is_not_admitted_is_not_heard() -> None:
    wire = Wire()
    by_invitation = make_swarm(is_open=False)
    stranger = Speaker(1, wire, swarm=by_invitation)
    two = Speaker(2, wire, swarm=by_invitation)
    await stranger.signaling.send(two.keys.record(), declined(1))
    assert two.introduced == []
    assert two.refusals.of(stranger.keys.peer_id) == 1


async def test_old_signal_is_refused() -> None:
    wire = Wire()
    one, two = Speaker(1, wire), Speaker(2, wire, clock=(clock := MovedClock()))
    await one.signaling.send(two.keys.record(), declined(1))
    late = Speaker(2, wire, clock=clock)
    clock.moved_s = SIGNAL_LIFETIME_MS / 1000 + 1
    late.signaling.receive(wire.passed[0])
    assert late.refusals.by_code() == {"signal": 1}


async def test_signal_that_never_expires_is_refused() -> None:
    one, two = Speaker(1), Speaker(2)
    sealed = seal_peer_signal(
        one.keys.identity,
        SignalPayload(record=one.keys.record().raw, body=declined(1)),
        to=two.keys.record(),
        sequence=1,
        now_ms=one.clock.now_ms() + 10 * SIGNAL_LIFETIME_MS,
    )
    two.signaling.receive(sealed)
    assert two.refusals.by_code() == {"signal": 1}


async def test_record_of_another_peer_does_not_introduce_the_sender() -> None:
    one, two, three = Speaker(1), Speaker(2), Speaker(3)
    sealed = seal_peer_signal(
        one.keys.identity,
        SignalPayload(record=three.keys.record().raw, body=declined(1)),
        to=two.keys.record(),
        sequence=1,
        now_ms=one.clock.now_ms(),
    )
    two.signaling.receive(sealed)
    assert two.introduced == []
    assert two.refusals.total() == 1


async def test_signal_that_comes_before_its_inbox_waits_for_a_moment() -> None:
    wire = Wire()
    one, two = Speaker(1, wire), Speaker(2, wire, clock=(clock := MovedClock()))
    await one.signaling.send(two.keys.record(), declined(1))
    with two.signaling.inbox(one.keys.peer_id, PunchDeclined) as inbox:
        assert await inbox.next() == declined(1)
    await one.signaling.send(two.keys.record(), declined(2))
    clock.moved_s = KEPT_S
    with two.signaling.inbox(one.keys.peer_id, PunchDeclined) as inbox:
        waiting = asyncio.ensure_future(inbox.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()


async def test_flood_of_one_peer_is_cut_off_and_does_not_touch_another() -> None:
    wire = Wire()
    one, two, three = (Speaker(number, wire) for number in (1, 2, 3))
    for number in range(40):
        await one.signaling.send(two.keys.record(), declined(number))
    assert 0 < two.refusals.of(one.keys.peer_id) <= 40
    with two.signaling.inbox(three.keys.peer_id, PunchDeclined) as inbox:
        await three.signaling.send(two.keys.record(), declined(1))
        assert await inbox.next() == declined(1)


async def test_strangers_however_many_do_not_keep_a_known_peer_from_being_heard() -> None:
    wire = Wire()
    one, two = Speaker(1, wire), Speaker(2, wire)
    two.known.add(one.keys.peer_id)
    for number in range(500):
        two.signaling.receive(bytes(100), claimed=Keys(1000 + number).peer_id)
    assert two.refusals.by_code()["signal-rate"] > 300
    await one.signaling.send(two.keys.record(), declined(1))
    two.signaling.receive(wire.passed.pop(), claimed=one.keys.peer_id)
    with two.signaling.inbox(one.keys.peer_id, PunchDeclined) as inbox:
        assert await inbox.next() == declined(1)


async def test_signal_that_is_passed_on_as_another_peers_is_refused() -> None:
    wire = Wire()
    one, two, three = (Speaker(number, wire) for number in (1, 2, 3))
    await one.signaling.send(three.keys.record(), declined(1))
    (sealed,) = wire.passed
    three = Speaker(3, wire)
    three.signaling.receive(sealed, claimed=two.keys.peer_id)
    assert three.introduced == []
    assert three.refusals.of(one.keys.peer_id) == 1


async def test_signal_of_this_identity_is_another_process_and_no_peer() -> None:
    wire = Wire()
    one, copy = Speaker(1, wire), Speaker(1, wire)
    await one.signaling.send(one.keys.record(), TwinNotice())
    assert copy.twins == [one.keys.peer_id]
    assert copy.introduced == []
    assert copy.refusals.total() == 0


async def test_full_inbox_keeps_the_newest() -> None:
    wire = Wire()
    one, two = Speaker(1, wire), Speaker(2, wire)
    with two.signaling.inbox(one.keys.peer_id, PunchDeclined) as inbox:
        for number in range(INBOX_MESSAGES + 3):
            await one.signaling.send(two.keys.record(), declined(number))
        assert await inbox.next() == declined(3)


async def test_another_rendezvous_is_used_when_one_fails() -> None:
    broken, wire = Wire(works=False), Wire()
    one, two = Speaker(1, broken, wire), Speaker(2, wire)
    with two.signaling.inbox(one.keys.peer_id, PunchDeclined) as inbox:
        await one.signaling.send(two.keys.record(), declined(1))
        assert await inbox.next() == declined(1)
    wire.works = False
    with pytest.raises(TransportError, match="no way; no way"):
        await one.signaling.send(two.keys.record(), declined(2))


async def test_banned_or_surplus_peer_is_not_listened_to() -> None:
    wire = Wire()
    one, two = Speaker(1, wire), Speaker(2, wire)
    two.is_welcome = False
    await one.signaling.send(two.keys.record(), declined(1))
    with two.signaling.inbox(one.keys.peer_id, PunchDeclined) as inbox:
        waiting = asyncio.ensure_future(inbox.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()


GOOD = PunchEnd(
    public="203.0.113.1:5000",
    hosts=("192.168.1.7:1", "[2001:db8::1]:1"),
    next_port=NextPort.FIXED,
    port_step=0,
    signal_rtt_ms=20,
)


def test_end_within_its_bounds_passes() -> None:
    check_punch_end(GOOD)


@pytest.mark.parametrize(
    "end",
    [
        {"public": "127.0.0.1:80"},
        {"public": "0.0.0.0:80"},
        {"public": "255.255.255.255:80"},
        {"public": "224.0.0.1:80"},
        {"public": "some.host.example:80"},
        {"public": "203.0.113.1:0"},
        {"public": "203.0.113.1"},
        {"hosts": ("[fe80::1]:80",)},
        {"hosts": ("192.168.1.7:1",) * 9},
        {"port_step": 65},
        {"signal_rtt_ms": -1},
        {"signal_rtt_ms": 10_001},
    ],
)
def test_end_that_no_machine_could_have_is_refused(end: dict[str, object]) -> None:
    fields = {name: getattr(GOOD, name) for name in GOOD.__struct_fields__} | end
    with pytest.raises(RemoteProtocolError):
        check_punch_end(PunchEnd(**fields))


def test_offer_is_small() -> None:
    one, two = Keys(1), Keys(2)
    sealed = seal_peer_signal(
        one.identity,
        SignalPayload(
            record=one.record("203.0.113.1:5000").raw,
            body=PunchOffer(attempt=bytes(16), end=GOOD),
        ),
        to=two.record(),
        sequence=1,
        now_ms=Clock().now_ms(),
    )
    assert len(sealed) < 1500
