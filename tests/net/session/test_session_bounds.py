"""What a session holds is bounded, and hostile frames end in RemoteProtocolError, nothing else."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.net.session import Session, SessionLimits
from daemon.net.session.receive_stream import INITIAL_CREDIT_BYTES, ReceiveStream
from protocol.errors import RemoteProtocolError
from protocol.peers.hello import NO_EPOCH, ResumePoint
from protocol.peers.session_frames import (
    FRAME_COST_BYTES,
    MAX_BULK_BYTES,
    MAX_CONTROL_BYTES,
    MAX_FRAME_BYTES,
    MAX_PAYLOAD_BYTES,
    Ack,
    Close,
    CloseCode,
    Hello,
    Ping,
    Pong,
    Stream,
    StreamAck,
    close_frame,
    decode_frame,
    encode_data,
    encode_frame,
)
from tests.net.session.session_lab import Lab, Wire

ZERO = StreamAck(next_sequence=0, credit_bytes=INITIAL_CREDIT_BYTES, received=())
PATH = 7


def opened() -> Session:
    session = Session(own_epoch=b"epoch--A", limits=SessionLimits(), now=0.0)
    resume = ResumePoint(epoch=b"epoch--A", control=ZERO, bulk=ZERO)
    session.attach_path(PATH, remote_epoch=b"epoch--B", resume=resume, score=1, now=0.0)
    drain(session)
    return session


def drain(session: Session, now: float = 0.0) -> list[bytes]:
    frames = []
    while session.next_event() is not None:
        pass
    while (frame := session.next_frame(now)) is not None:
        frames.append(frame.data)
    return frames


def bulk(sequence: int, payload: bytes = b"", *, first: bool = False, last: bool = False) -> bytes:
    return encode_data(Stream.BULK, sequence, first=first, last=last, payload=payload)


# Bounds of an honest pair


def test_sender_stops_at_the_credit_of_an_application_that_takes_nothing() -> None:
    lab = Lab()
    path = lab.attach()
    lab.run(0.1)
    receiver = lab.sides[1]
    receiver.takes_messages = False
    for _ in range(10):
        while lab.send(0, Stream.BULK, bytes(1_000_000)):
            pass
        lab.run(1)
    window_bytes = lab.limits.bulk_window_bytes
    assert window_bytes - MAX_FRAME_BYTES < lab.wires[path].carried_bytes < window_bytes + 10_000
    assert lab.sides[0].session.room_bytes(Stream.BULK) < MAX_BULK_BYTES
    receiver.takes_messages = True
    lab.run(5)
    assert lab.sides[0].session.room_bytes(Stream.BULK) == lab.limits.bulk_queue_bytes


def test_control_passes_while_bulk_has_no_credit() -> None:
    lab = Lab()
    lab.attach()
    lab.sides[1].takes_messages = False
    while lab.send(0, Stream.BULK, bytes(1_000_000)):
        lab.run(1)
    assert lab.send(0, Stream.CONTROL, b"still")
    lab.run(1)
    lab.sides[1].takes_messages = True
    lab.pump()
    assert lab.sides[1].messages[Stream.CONTROL] == [b"still"]


def test_queue_of_a_peer_that_is_away_is_bounded() -> None:
    lab = Lab()
    path = lab.attach()
    lab.wires[path].is_cut = True
    taken = 0
    while lab.send(0, Stream.CONTROL, bytes(1000)):
        taken += 1
    assert 1900 * 1000 < taken * 1000 <= lab.limits.control_queue_bytes


def test_smaller_share_of_memory_holds_for_what_is_granted_from_then_on() -> None:
    lab = Lab()
    path = lab.attach()
    lab.run(0.1)
    for side in lab.sides:
        side.session.set_bulk_limits(
            window_bytes=INITIAL_CREDIT_BYTES, queue_bytes=INITIAL_CREDIT_BYTES
        )
    for _ in range(10):
        while lab.send(0, Stream.BULK, bytes(1_000_000)):
            pass
        lab.run(1)
    lab.sides[1].takes_messages = False
    before = lab.wires[path].carried_bytes
    for _ in range(10):
        while lab.send(0, Stream.BULK, bytes(1_000_000)):
            pass
        lab.run(1)
    assert lab.wires[path].carried_bytes - before < INITIAL_CREDIT_BYTES + 10_000


def test_share_of_memory_may_become_smaller_between_hello_and_path() -> None:
    lab = Lab()
    path = lab.attach(Wire(delay_s=0.05), lag_s=0.02)
    receiver = lab.sides[1]
    receiver.session.set_bulk_limits(
        window_bytes=INITIAL_CREDIT_BYTES, queue_bytes=INITIAL_CREDIT_BYTES
    )
    receiver.takes_messages = False
    while lab.send(0, Stream.BULK, bytes(1_000_000)):
        pass
    lab.run(1)
    carried_bytes = lab.wires[path].carried_bytes
    assert INITIAL_CREDIT_BYTES - MAX_FRAME_BYTES < carried_bytes < INITIAL_CREDIT_BYTES + 10_000
    receiver.takes_messages = True
    lab.run(2)
    assert lab.sides[0].session.room_bytes(Stream.BULK) == lab.limits.bulk_queue_bytes


def test_hello_tells_what_is_granted_and_grants_nothing() -> None:
    lab = Lab()
    session = lab.sides[1].session
    for epoch in (NO_EPOCH, b"epoch--A"):
        assert session.resume_point(epoch).bulk == ZERO
    lab.attach()
    assert session.resume_point(b"epoch--A").bulk.credit_bytes == lab.limits.bulk_window_bytes
    assert session.resume_point(b"epoch--X").bulk == ZERO


def test_what_was_taken_is_credit_once_it_is_granted() -> None:
    stream = ReceiveStream(Stream.BULK, INITIAL_CREDIT_BYTES)
    frame = decode_frame(bulk(0, bytes(1000), first=True, last=True))
    stream.receive(frame)  # type: ignore[arg-type]  # it is a data frame
    assert stream.take() == bytes(1000)
    assert stream.so_far() == StreamAck(1, INITIAL_CREDIT_BYTES, ())
    stream.grant()
    assert stream.so_far() == StreamAck(1, INITIAL_CREDIT_BYTES + 1000 + FRAME_COST_BYTES, ())


def test_credit_is_not_lost_with_a_lost_acknowledgement() -> None:
    lab = Lab(seed=3)
    lab.attach(Wire(delay_s=0.01, loss=0.3))
    for _ in range(20):
        while lab.send(0, Stream.BULK, bytes(1_000_000)):
            pass
        lab.run(3)
    assert len(lab.sides[1].messages[Stream.BULK]) > 20


def test_credit_that_was_granted_while_the_path_was_deaf_is_granted_again() -> None:
    lab = Lab()
    path = lab.attach()
    lab.run(0.1)
    lab.sides[1].takes_messages = False
    for _ in range(10):
        while lab.send(0, Stream.BULK, bytes(1_000_000)):
            pass
        lab.run(1)
    lab.wires[path].is_cut = True
    lab.sides[1].takes_messages = True
    lab.pump()
    lab.run(0.1)
    before = len(lab.sides[1].messages[Stream.BULK])
    lab.wires[path].is_cut = False
    lab.run(1.5)
    assert len(lab.sides[1].messages[Stream.BULK]) > before


# Hostile frames


def test_frame_beyond_the_credit_breaks_the_protocol() -> None:
    session = opened()
    with pytest.raises(RemoteProtocolError, match="credit overrun"):  # noqa: PT012 - in the end
        for sequence in range(100):
            frame = bulk(sequence, bytes(MAX_PAYLOAD_BYTES), first=True, last=True)
            session.receive_frame(PATH, frame, 0.0)
    granted_bytes = SessionLimits().bulk_window_bytes
    assert sequence == granted_bytes // (MAX_PAYLOAD_BYTES + FRAME_COST_BYTES)


def test_frames_out_of_order_count_against_the_credit_too() -> None:
    session = opened()
    with pytest.raises(RemoteProtocolError, match="credit overrun"):  # noqa: PT012 - in the end
        for sequence in range(1, 100):
            session.receive_frame(PATH, bulk(sequence, bytes(MAX_PAYLOAD_BYTES)), 0.0)


def test_empty_frames_cost_credit_too() -> None:
    stream = ReceiveStream(Stream.BULK, 4 << 20)
    with pytest.raises(RemoteProtocolError, match="credit overrun"):  # noqa: PT012 - in the end
        for sequence in range(1, 20_000):
            frame = decode_frame(bulk(sequence))
            stream.receive(frame)  # type: ignore[arg-type]  # it is a data frame
    assert sequence == INITIAL_CREDIT_BYTES // FRAME_COST_BYTES


def test_sequence_number_far_ahead_breaks_the_protocol() -> None:
    with pytest.raises(RemoteProtocolError, match="credit overrun"):
        opened().receive_frame(PATH, bulk(2**62), 0.0)


def test_message_without_end_is_cut_at_the_largest_size() -> None:
    for stream, most in ((Stream.CONTROL, MAX_CONTROL_BYTES), (Stream.BULK, MAX_BULK_BYTES)):
        receiver = ReceiveStream(stream, 4 << 20)
        receiver.grant()
        with pytest.raises(RemoteProtocolError, match=f"more than {most} bytes"):  # noqa: PT012
            for sequence in range(100):
                data = encode_data(
                    stream,
                    sequence,
                    first=sequence == 0,
                    last=False,
                    payload=bytes(MAX_PAYLOAD_BYTES),
                )
                receiver.receive(decode_frame(data))  # type: ignore[arg-type]  # a data frame


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([bulk(0)], "continues no message"),
        ([bulk(0, first=True), bulk(1, first=True)], "starts a message within another"),
    ],
)
def test_fragments_that_do_not_fit_together(frames: list[bytes], complaint: str) -> None:
    session = opened()
    with pytest.raises(RemoteProtocolError, match=complaint):  # noqa: PT012 - the last one
        for frame in frames:
            session.receive_frame(PATH, frame, 0.0)


@pytest.mark.parametrize(
    "ack",
    [
        StreamAck(next_sequence=1, credit_bytes=0, received=()),
        StreamAck(next_sequence=0, credit_bytes=0, received=((1, 2),)),
        StreamAck(next_sequence=0, credit_bytes=0, received=((0, 2**62),)),
        StreamAck(next_sequence=0, credit_bytes=0, received=((5, 5),)),
        StreamAck(next_sequence=0, credit_bytes=0, received=((9, 5),)),
    ],
)
def test_acknowledging_what_was_never_sent_breaks_the_protocol(ack: StreamAck) -> None:
    session = opened()
    with pytest.raises(RemoteProtocolError, match="acknowledged"):
        session.receive_frame(PATH, encode_frame(Ack(control=ack, bulk=ZERO, said_at_us=1)), 0.0)
    resume = ResumePoint(epoch=b"epoch--A", control=ZERO, bulk=ack)
    with pytest.raises(RemoteProtocolError, match="acknowledged"):
        opened().attach_path(8, remote_epoch=b"epoch--B", resume=resume, score=1, now=0.0)


def test_huge_credit_does_not_lift_the_bound_of_the_own_queue() -> None:
    session = opened()
    ack = StreamAck(next_sequence=0, credit_bytes=2**62, received=())
    session.receive_frame(PATH, encode_frame(Ack(control=ack, bulk=ack, said_at_us=1)), 0.0)
    taken = 0
    while session.send(Stream.BULK, bytes(1_000_000)):
        taken += 1
    assert taken == 4


def test_flood_of_pings_is_answered_only_so_far() -> None:
    session = opened()
    for number in range(1000):
        session.receive_frame(PATH, encode_frame(Ping(number)), 0.0)
    pongs = [frame for frame in drain(session) if isinstance(decode_frame(frame), Pong)]
    assert len(pongs) == 32


def test_pong_to_no_ping_changes_nothing() -> None:
    session = opened()
    session.receive_frame(PATH, encode_frame(Pong(12345)), 0.0)
    assert session.rtt_s(PATH) is None


def test_hello_and_close_are_not_the_sessions_business() -> None:
    for frame in (encode_frame(Hello(b"")), close_frame(CloseCode.DENIED, "why")):
        assert isinstance(decode_frame(frame), Hello | Close)
        with pytest.raises(RemoteProtocolError, match="unexpected"):
            opened().receive_frame(PATH, frame, 0.0)


def test_frame_of_a_path_that_is_gone_is_ignored() -> None:
    session = opened()
    session.receive_frame(PATH + 1, b"rubbish", 0.0)
    assert drain(session) == []


FRAMES = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda tail: b"\x01" + tail, st.binary(max_size=40)),
    st.builds(
        encode_data,
        st.sampled_from(Stream),
        st.integers(0, 30),
        first=st.booleans(),
        last=st.booleans(),
        payload=st.binary(max_size=100),
    ),
    st.builds(
        lambda control, bulk, said_at_us: encode_frame(Ack(control, bulk, said_at_us)),
        *[
            st.builds(
                StreamAck,
                next_sequence=st.integers(0, 40),
                credit_bytes=st.integers(0, 2**63 - 1),
                received=st.lists(
                    st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=3
                ).map(tuple),
            )
        ]
        * 2,
        st.integers(0, 2**63 - 1),
    ),
    st.builds(lambda number: encode_frame(Ping(number)), st.integers(0, 2**63 - 1)),
    st.builds(lambda number: encode_frame(Pong(number)), st.integers(0, 100)),
)


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(frames=st.lists(FRAMES, max_size=60), seed=st.integers(0, 100))
def test_no_frames_whatsoever_make_anything_but_a_protocol_error(
    frames: list[bytes], seed: int
) -> None:
    session = opened()
    now, dice = 0.0, random.Random(seed)
    for number in range(10):
        session.send(dice.choice(list(Stream)), bytes(dice.randrange(200_000)))
        drain(session, now + number * 0.001)
    for frame in frames:
        now += dice.choice([0.0, 0.01, 1.0])
        try:
            session.receive_frame(PATH, frame, now)
        except RemoteProtocolError:
            return
        session.handle_timer(now)
        drain(session, now)
