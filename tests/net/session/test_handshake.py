"""Hellos: who is believed on a new path, and who is not."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest

from daemon.net.own_record import OwnRecord
from daemon.net.session.handshake import (
    GIVE_UP_S,
    MAX_HELLOS,
    Channel,
    Greeter,
    HandshakeState,
    PathHandshake,
    close_code,
)
from protocol.codec import Message, decode, encode
from protocol.envelope import Domain, seal_envelope
from protocol.errors import P2PDError, RemoteProtocolError, TransportError, VerificationError
from protocol.identity import PeerId
from protocol.peers.hello import (
    HelloPayload,
    ResumePoint,
    Role,
    VerifiedHello,
)
from protocol.peers.session_frames import (
    SMALL_FRAME_BYTES,
    CloseCode,
    Hello,
    StreamAck,
    decode_frame,
)
from protocol.statements.admission import AdmissionBook
from protocol.statements.peer_record import PeerRecord
from protocol.statements.sequence import SequenceCounter
from protocol.statements.swarm import Swarm
from tests.net.swarm_peers import SWARM, Keys, make_swarm
from transport.clock import Clock

CALLER, CALLED, OTHER = Keys(1), Keys(2), Keys(3)
BINDING = CALLER.curve.public + CALLED.curve.public
ZERO = StreamAck(next_sequence=0, credit_bytes=1000, received=())


@dataclass
class View:
    """What a hello says of a session."""

    own_epoch: bytes

    def resume_point(self, remote_epoch: bytes) -> ResumePoint:
        return ResumePoint(epoch=remote_epoch, control=ZERO, bulk=ZERO)


class Shown(OwnRecord):
    """Shows a record that the test chose."""

    def __init__(self, keys: Keys, swarm: Swarm, raw: bytes) -> None:
        says = PeerRecord(curve_key=b"", addresses=(), name="", trains=True)
        clock = Clock()
        sequence = SequenceCounter(now_ms=clock.now_ms())
        super().__init__(keys.identity, swarm.swarm_id, says, sequence=sequence, clock=clock)
        self._raw = raw

    def signed(self) -> bytes:
        return self._raw


@dataclass
class Door:
    """Lets members in."""

    book: AdmissionBook
    view: View

    def admit(self, hello: VerifiedHello) -> None:
        self.book.check(hello.peer_id, hello.record.record.proof, now_ms=Clock().now_ms())

    def met(self, hello: VerifiedHello) -> None:
        self.admit(hello)

    def session_of(self, peer_id: PeerId) -> View:
        return self.view


def greeter(
    keys: Keys,
    *,
    swarm: Swarm = SWARM,
    record_of: Keys | None = None,
    curve_key: bytes | None = None,
) -> Greeter:
    record = (record_of or keys).record("127.0.0.1:1", curve_key=curve_key, swarm=swarm)
    own_record = Shown(keys, swarm, record.raw)
    return Greeter(own_record, Door(AdmissionBook(swarm), View(b"epoch-%02d" % keys.number)))


CALLING = Channel(
    role=Role.INITIATOR,
    binding=BINDING,
    expected=CALLED.peer_id,
    remote_curve_key=CALLED.curve.public,
)
LISTENING = Channel(
    role=Role.RESPONDER, binding=BINDING, expected=None, remote_curve_key=CALLER.curve.public
)


@dataclass
class End:
    """One side of a path, and what it came to believe."""

    greeter: Greeter
    channel: Channel
    nonce: bytes
    believed: list[VerifiedHello] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.handshake = PathHandshake(self.greeter, self.channel, nonce=self.nonce, now=0.0)

    @property
    def is_confirmed(self) -> bool:
        return self.handshake.state is HandshakeState.CONFIRMED

    def sends(self) -> list[bytes]:
        envelopes = []
        while (frame := self.handshake.next_frame()) is not None:
            hello = decode_frame(frame)
            assert isinstance(hello, Hello)
            envelopes.append(hello.envelope)
        return envelopes

    def receives(self, envelopes: list[bytes], now: float = 0.0) -> None:
        for envelope in envelopes:
            hello = self.handshake.receive(envelope, now)
            if hello is not None:
                self.believed.append(hello)


def caller(keys: Keys = CALLER, channel: Channel = CALLING, **more: Keys | Swarm | bytes) -> End:
    return End(greeter(keys, **more), channel, b"nonce of caller.")  # type: ignore[arg-type]  # by name


def called(channel: Channel = LISTENING, swarm: Swarm = SWARM) -> End:
    return End(greeter(CALLED, swarm=swarm), channel, b"nonce of called.")


def test_three_hellos_confirm_both_sides_and_no_fourth_is_sent() -> None:
    first, second = caller(), called()
    second.handshake.handle_timer(0.0)
    assert second.sends() == []  # It does not know yet whom to greet.
    first.handshake.handle_timer(0.0)
    second.receives(first.sends())
    assert not second.is_confirmed
    first.receives(second.sends())
    assert first.is_confirmed
    second.receives(first.sends())
    assert second.is_confirmed
    assert second.sends() == []
    assert [hello.peer_id for hello in first.believed] == [CALLED.peer_id]
    assert [hello.peer_id for hello in second.believed] == [CALLER.peer_id]
    assert first.believed[0].payload.epoch == b"epoch-02"
    assert first.believed[0].payload.resume.epoch == b"epoch-01"
    assert first.handshake.deadline() is None


def test_two_sides_that_both_speak_first_confirm_each_other() -> None:
    first = caller()
    second = called(replace(LISTENING, expected=CALLER.peer_id))
    for end in (first, second):
        end.handshake.handle_timer(0.0)
    from_first, from_second = first.sends(), second.sends()
    first.receives(from_second)
    second.receives(from_first)
    for _ in range(2):
        second.receives(first.sends())
        first.receives(second.sends())
    assert first.is_confirmed
    assert second.is_confirmed
    assert len(first.believed) == len(second.believed) == 1
    assert first.sends() == second.sends() == []


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_lost_hello_is_said_again_after_a_second(lost: int) -> None:
    first, second = caller(), called()
    carried = 0
    for now in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5):
        for end, other in ((first, second), (second, first)):
            if (deadline := end.handshake.deadline()) is not None and deadline <= now:
                end.handshake.handle_timer(now)
            for sender, receiver in ((end, other), (other, end)):
                for envelope in sender.sends():
                    if carried != lost:
                        receiver.receives([envelope], now)
                    carried += 1
    assert first.is_confirmed
    assert second.is_confirmed
    assert len(first.believed) == len(second.believed) == 1


def test_path_without_a_hello_is_given_up() -> None:
    end = called()
    assert end.handshake.deadline() == GIVE_UP_S
    with pytest.raises(TransportError, match="no hello within 5 s"):
        end.handshake.handle_timer(GIVE_UP_S)


def test_recorded_hellos_are_answered_and_not_believed() -> None:
    first, second = caller(), called()
    first.handshake.handle_timer(0.0)
    second.receives(first.sends())
    first.receives(second.sends())
    recorded = first.sends()
    again = End(second.greeter, LISTENING, b"another nonce...")
    again.receives(recorded)
    assert not again.is_confirmed
    assert again.believed == []


def test_path_is_for_the_sessions_that_it_was_confirmed_for() -> None:
    first, second = caller(), called()
    first.handshake.handle_timer(0.0)
    second.receives(first.sends())
    first.receives(second.sends())
    first.sends()  # The last hello is lost.
    assert isinstance(second.greeter.door, Door)
    second.greeter.door.view.own_epoch = b"epoch-03"
    second.handshake.handle_timer(1.0)
    with pytest.raises(TransportError, match="began its session anew"):
        first.receives(second.sends(), 1.0)
    assert first.sends() == []


def test_endless_hellos_break_the_protocol() -> None:
    first, second = caller(), called()
    first.handshake.handle_timer(0.0)
    hellos = first.sends()
    with pytest.raises(RemoteProtocolError, match="more than 16 hellos"):  # noqa: PT012 - the last
        for _ in range(MAX_HELLOS + 1):
            second.receives(hellos)


def hello_of(end: End) -> bytes:
    end.handshake.handle_timer(0.0)
    (envelope,) = end.sends()
    return envelope


class Envelope(Message):
    """The outside of an envelope, to make one that seal_envelope would not."""

    body: bytes
    signature: bytes


def of_another_version() -> bytes:
    envelope = decode(hello_of(caller()), Envelope)
    fields = msgspec.msgpack.decode(envelope.body)
    fields[1] += 1
    body = msgspec.msgpack.encode(fields)
    signature = CALLER.identity.sign(b"p2pd signed envelope\x00" + body)
    return encode(Envelope(body=body, signature=signature))


BELOW = replace(CALLING, binding=BINDING[::-1])
HOSTILE: dict[str, tuple[Callable[[], bytes], CloseCode, str]] = {
    "garbage": (lambda: b"\xc1rubbish", CloseCode.PROTOCOL, "malformed"),
    "bound to another channel": (
        lambda: hello_of(caller(channel=BELOW)),
        CloseCode.IDENTITY,
        "another channel",
    ),
    "in the reader's own role": (
        lambda: hello_of(caller(channel=replace(CALLING, role=Role.RESPONDER))),
        CloseCode.IDENTITY,
        "own role",
    ),
    "of another swarm": (
        lambda: hello_of(caller(swarm=make_swarm(name="other"))),
        CloseCode.IDENTITY,
        "for swarm",
    ),
    "meant for another peer": (
        lambda: hello_of(caller(channel=replace(CALLING, expected=OTHER.peer_id))),
        CloseCode.IDENTITY,
        "another reader",
    ),
    "with another peer's record": (
        lambda: hello_of(caller(record_of=OTHER)),
        CloseCode.IDENTITY,
        "with the record of",
    ),
    "with a record of another CURVE key": (
        lambda: hello_of(caller(curve_key=OTHER.curve.public)),
        CloseCode.IDENTITY,
        "another CURVE key",
    ),
    "of another protocol version": (of_another_version, CloseCode.VERSION, "version"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hello_that_is_not_believed(name: str) -> None:
    make, code, complaint = HOSTILE[name]
    end = called()
    with pytest.raises(RemoteProtocolError, match=complaint) as raised:
        end.receives([make()])
    assert close_code(raised.value) is code
    assert end.sends() == []


def test_hello_with_one_bit_flipped_anywhere_is_not_believed() -> None:
    envelope = hello_of(caller())
    for position in range(0, len(envelope), 7):
        changed = bytearray(envelope)
        changed[position] ^= 1
        with pytest.raises(RemoteProtocolError):
            called().receives([bytes(changed)])


def test_own_hello_sent_back_is_not_believed() -> None:
    first = caller(channel=replace(CALLING, expected=None))
    first.receives([])
    own = hello_of(caller())
    with pytest.raises(VerificationError):
        first.receives([own])


def test_peer_without_an_invite_is_denied() -> None:
    closed = make_swarm(is_open=False)
    with pytest.raises(P2PDError, match="shows no invite") as raised:
        called(swarm=closed).receives([hello_of(caller(swarm=closed))])
    assert close_code(raised.value) is CloseCode.DENIED


def test_other_peer_than_the_called_one_is_not_believed() -> None:
    first = caller()
    impostor = End(
        greeter(OTHER),
        Channel(
            role=Role.RESPONDER, binding=BINDING, expected=CALLER.peer_id, remote_curve_key=None
        ),
        b"nonce of someone",
    )
    with pytest.raises(VerificationError, match="signed by"):
        first.receives([hello_of(impostor)])


def test_new_nonce_on_a_path_in_use_breaks_the_protocol() -> None:
    second = called()
    second.receives([hello_of(caller())])
    anew = End(greeter(CALLER), CALLING, b"a second nonce..")
    with pytest.raises(RemoteProtocolError, match="began anew"):
        second.receives([hello_of(anew)])


def test_golden_payload() -> None:
    golden = json.loads((Path(__file__).parents[2] / "data" / "hello.json").read_text("ascii"))
    payload = HelloPayload(
        channel_binding=b"both keys",
        role=Role.INITIATOR,
        epoch=b"epoch-01",
        nonce=b"nonce of caller.",
        echo=b"",
        confirmed=False,
        resume=ResumePoint(epoch=b"epoch-02", control=ZERO, bulk=ZERO),
        record=b"a signed record",
        max_frame_bytes=200_000,
    )
    assert encode(payload).hex() == golden["payload"]
    assert decode(bytes.fromhex(golden["payload"]), HelloPayload) == payload


def test_hello_without_a_frame_size_is_of_a_peer_that_takes_small_frames() -> None:
    golden = json.loads((Path(__file__).parents[2] / "data" / "hello.json").read_text("ascii"))
    payload = decode(bytes.fromhex(golden["without-frame-size"]), HelloPayload)
    assert payload.max_frame_bytes == SMALL_FRAME_BYTES


def test_envelope_of_another_domain_is_no_hello() -> None:
    envelope = seal_envelope(CALLER.identity, Domain.UPDATE, b"", swarm=SWARM.swarm_id, sequence=1)
    with pytest.raises(VerificationError, match="kind 'hello' expected"):
        called().receives([envelope])
