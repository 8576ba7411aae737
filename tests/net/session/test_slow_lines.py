"""Lines on which a model takes hours: it arrives once, and control gets through meanwhile."""

import pytest

from daemon.net.session import PeerDown
from daemon.net.session.in_flight_limit import InFlightLimit
from daemon.net.session.send_stream import Acknowledged, SendStream
from protocol.peers.session_frames import (
    SMALL_FRAME_BYTES,
    Ack,
    Ping,
    Pong,
    Stream,
    StreamAck,
    decode_frame,
    encode_frame,
)
from tests.net.session.session_lab import Lab, Wire

SECONDS = 100
CHUNK = 50_000


@pytest.mark.parametrize("rate", [10_000, 30_000, 125_000, 2_500_000])
@pytest.mark.parametrize("talkers", [(0,), (0, 1)], ids=["one way", "both ways"])
def test_slow_line_carries_what_it_can_once_and_control_gets_through(
    rate: int, talkers: tuple[int, ...]
) -> None:
    lab = Lab()
    path = lab.attach(Wire(delay_s=0.03, bytes_per_s=rate))
    waits_s = []
    for second in range(SECONDS):
        urgent = b"%d" % second
        assert lab.send(0, Stream.CONTROL, urgent)
        began = lab.now
        while urgent not in lab.sides[1].messages[Stream.CONTROL] or lab.now < began + 1:
            for index in talkers:
                while lab.send(index, Stream.BULK, bytes(CHUNK)):
                    pass
            lab.run(0.1)
        if second > 10:  # Before that the rate is not known.
            waits_s.append(lab.now - began)
    assert max(waits_s) < 3
    for index in talkers:
        arrived = sum(map(len, lab.sides[1 - index].messages[Stream.BULK]))
        assert arrived > 0.75 * rate * SECONDS
    arrived = sum(len(one) for side in lab.sides for one in side.messages[Stream.BULK])
    assert lab.wires[path].carried_bytes < 1.1 * arrived + 2 * rate
    assert not any(isinstance(event, PeerDown) for side in lab.sides for event in side.events)


def test_line_that_stands_still_and_goes_on_is_sent_nothing_twice() -> None:
    """As where a radio changes its cell: what it was given waits there and is delivered."""
    lab = Lab()
    path = lab.attach(Wire(delay_s=0.03, bytes_per_s=1_000_000))
    for _ in range(4):
        assert lab.send(0, Stream.BULK, bytes(1_000_000))
    lab.run(2)
    for direction in (0, 1):
        lab.wires[path].busy_until[direction] += 8
    lab.run(12)
    arrived = sum(map(len, lab.sides[1].messages[Stream.BULK]))
    assert arrived == 4_000_000
    assert lab.wires[path].carried_bytes < 1.02 * arrived
    assert lab.sides[0].session.active_path == path


def test_who_answers_a_ping_says_before_what_has_arrived() -> None:
    lab = Lab()
    path = lab.attach()
    lab.run(0.5)
    sender, answerer = lab.sides[0].session, lab.sides[1].session
    assert sender.send(Stream.CONTROL, b"before the ping")
    data = sender.next_frame(lab.now)
    assert data is not None
    sender.handle_timer(lab.now + 1)
    frames = [data, *iter(lambda: sender.next_frame(lab.now + 1), None)]
    for frame in frames:
        answerer.receive_frame(path, frame.data, lab.now + 1)
    answers = []
    while (answer := answerer.next_frame(lab.now + 1)) is not None:
        answers.append(decode_frame(answer.data))
    kinds = [type(one) for one in answers]
    assert kinds.index(Ack) < kinds.index(Pong)
    first = answers[kinds.index(Ack)]
    assert isinstance(first, Ack)
    assert first.control.next_sequence == 1


def test_answer_goes_not_without_the_word_on_what_has_arrived() -> None:
    lab = Lab()
    path = lab.attach()
    lab.run(0.5)
    answerer = lab.sides[1].session
    answerer.receive_frame(path, encode_frame(Ping(1)), lab.now)
    ack = answerer.next_frame(lab.now)
    assert ack is not None
    assert isinstance(decode_frame(ack.data), Ack)
    answerer.frame_refused(ack, lab.now)
    rest = []
    while (frame := answerer.next_frame(lab.now)) is not None:
        rest.append(decode_frame(frame.data))
    assert Pong(1) not in rest


@pytest.mark.parametrize(
    "wires",
    [
        (Wire(0.03, bytes_per_s=500_000), Wire(0.03, bytes_per_s=500_000)),
        (Wire(0.3, bytes_per_s=2_000_000), Wire(0.01, bytes_per_s=2_000_000)),
    ],
    ids=["alike", "not alike"],
)
def test_answers_that_overtake_acknowledgements_on_another_lane_have_nothing_sent_twice(
    wires: tuple[Wire, Wire],
) -> None:
    lab = Lab()
    paths = [lab.attach(wire, kind="tcp") for wire in wires]
    for _ in range(300):
        for index in (0, 1):
            while lab.send(index, Stream.BULK, bytes(CHUNK)):
                pass
        lab.run(0.1)
    lab.run(20)
    arrived = sum(len(one) for side in lab.sides for one in side.messages[Stream.BULK])
    assert sum(lab.wires[path].carried_bytes for path in paths) < 1.04 * arrived


def test_what_an_old_path_swallows_after_a_better_one_has_come_is_not_missed_for_long() -> None:
    lab = Lab()
    old = lab.attach(score=1.0)
    lab.run(2)
    lab.wires[old].is_cut = True
    assert lab.send(0, Stream.CONTROL, b"swallowed")
    lab.run(0.1)
    lab.attach(score=2.0)
    lab.run(4)
    assert lab.sides[1].messages[Stream.CONTROL] == [b"swallowed"]


def test_clock_that_is_set_looks_like_no_queue() -> None:
    def after(step_s: float, slower_s: float) -> int:
        """The limit, when one side's clock was set and the round trip grew by so much."""
        limit = InFlightLimit()
        now = 100.0
        for turn in range(60):
            late = turn >= 30
            round_s = 0.1 + slower_s * late
            limit.acknowledged(
                Acknowledged(10_000, now - round_s),
                in_flight_bytes=limit.limit_bytes,
                now=now,
                said_at=now - 0.05 + step_s * late,
            )
            now += 0.1
        return limit.limit_bytes

    assert after(0.5, 0.0) == after(0.0, 0.0)
    assert after(0.0, 0.5) < after(0.0, 0.0)


def test_limit_that_held_nothing_up_is_kept() -> None:
    limit = InFlightLimit()
    for second in range(300):
        limit.acknowledged(
            Acknowledged(1000, second + 0.9), in_flight_bytes=1000, now=second + 1.0, said_at=second
        )
    assert limit.limit_bytes == InFlightLimit().limit_bytes


def test_short_bursts_on_a_fast_path_come_to_have_large_frames() -> None:
    lab = Lab()
    path = lab.attach(Wire(delay_s=0.01, bytes_per_s=100_000_000))
    for _ in range(10):
        assert lab.send(0, Stream.BULK, bytes(100_000))
        lab.run(1)
    assert lab.wires[path].largest > SMALL_FRAME_BYTES


def test_acknowledgement_of_what_is_long_gone_lets_go_of_the_rest_alone() -> None:
    stream = SendStream(Stream.BULK, queue_bytes=1 << 20)
    stream.acknowledge(StreamAck(0, 1 << 40, ()), 0.0, ())
    for _ in range(40):
        assert stream.offer(b"message")
        assert stream.next_frame(0, 0.0, 100) is not None
    for last in (20, 40):  # Frame 0 never.
        stream.acknowledge(StreamAck(0, 1 << 40, ((1, last),)), 0.1, (0,))
    assert stream.arrived_bytes == 39 * len(b"message")
    stream.acknowledge(StreamAck(40, 1 << 40, ()), 0.2, (0,))
    assert stream.arrived_bytes == 40 * len(b"message")
