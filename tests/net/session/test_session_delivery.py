"""Whatever the paths do: each message once, in order, per stream."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.net.session import ActivePathChanged, SessionState
from daemon.net.session.in_flight_limit import INITIAL_FRAME_BYTES
from protocol.peers.session_frames import (
    MAX_BULK_BYTES,
    MAX_CONTROL_BYTES,
    MAX_FRAME_BYTES,
    SMALL_FRAME_BYTES,
    Stream,
)
from tests.net.session.session_lab import Lab, Wire

KIB = 1024


def message(stream: Stream, number: int, size: int) -> bytes:
    head = f"{stream.name}-{number}-".encode()
    return (head + random.Random(number).randbytes(max(0, size - len(head))))[
        : max(size, len(head))
    ]


def test_messages_arrive_once_and_in_order_on_a_clean_path() -> None:
    lab = Lab()
    lab.attach()
    sent = [message(Stream.CONTROL, n, n * 1000) for n in range(200)]
    for item in sent:
        assert lab.send(0, Stream.CONTROL, item)
        lab.run(0.01)
    lab.run(1)
    assert lab.sides[1].messages[Stream.CONTROL] == sent


@pytest.mark.parametrize("size", [0, 1, 65525, 65526, 65527, 131052, MAX_CONTROL_BYTES])
def test_sizes_around_the_borders_of_fragments(size: int) -> None:
    lab = Lab()
    lab.attach()
    payload = random.Random(size).randbytes(size)
    assert lab.send(0, Stream.CONTROL, payload)
    lab.run(1)
    assert lab.sides[1].messages[Stream.CONTROL] == [payload]


def test_largest_bulk_message_fits_and_a_larger_one_is_refused_by_the_sender() -> None:
    lab = Lab()
    lab.attach()
    assert lab.send(0, Stream.BULK, bytes(MAX_BULK_BYTES))
    with pytest.raises(ValueError, match="message of"):
        lab.send(0, Stream.BULK, bytes(MAX_BULK_BYTES + 1))
    lab.run(2)
    assert [len(item) for item in lab.sides[1].messages[Stream.BULK]] == [MAX_BULK_BYTES]


SENDS = st.tuples(
    st.just("send"),
    st.integers(0, 1),
    st.sampled_from(Stream),
    st.sampled_from([0, 1, 100, 5000, 65526, 65527, 200_000, MAX_CONTROL_BYTES]),
)
WIRES = st.builds(
    Wire,
    delay_s=st.sampled_from([0.0, 0.001, 0.05, 0.3]),
    jitter_s=st.sampled_from([0.0, 0.01, 0.2]),
    loss=st.sampled_from([0.0, 0.01, 0.2, 0.5]),
    doubling=st.sampled_from([0.0, 0.3]),
    refusal=st.sampled_from([0.0, 0.2]),
    bytes_per_s=st.sampled_from([0.0, 500_000.0]),
)
ACTIONS = st.one_of(
    SENDS,
    SENDS,
    SENDS,
    st.tuples(st.just("run"), st.sampled_from([0.001, 0.02, 0.2, 1.5, 7.0, 30.0])),
    st.tuples(
        st.just("attach"),
        WIRES,
        st.integers(0, 3),
        st.sampled_from([0.0, 0.05]),
        st.sampled_from([None, "tcp", "udp"]),
    ),
    st.tuples(st.just("detach"), st.integers(0, 5), st.sampled_from([0, 1])),
    st.tuples(st.just("cut"), st.integers(0, 5)),
    st.tuples(st.just("score"), st.integers(0, 5), st.integers(0, 4)),
)


@settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(actions=st.lists(ACTIONS, max_size=40), seed=st.integers(0, 1000))
def test_exactly_once_and_in_order_over_any_network(
    actions: list[tuple[object, ...]], seed: int
) -> None:
    lab = Lab(seed)
    lab.attach()
    sent: dict[tuple[int, Stream], list[bytes]] = {
        (index, stream): [] for index in (0, 1) for stream in Stream
    }
    for number, action in enumerate(actions):
        paths = sorted(lab.wires)
        match action:
            case ("send", int(index), Stream() as stream, int(size)):
                item = message(stream, number, size)
                if lab.send(index, stream, item):
                    sent[index, stream].append(item)
            case ("run", float(seconds)):
                lab.run(seconds)
            case ("attach", Wire() as wire, int(score), float(lag_s), kind):
                lab.attach(wire, score=score, lag_s=lag_s, kind=kind)
            case ("detach", int(which), int(index)):
                lab.detach(paths[which % len(paths)], index)
            case ("cut", int(which)):
                lab.wires[paths[which % len(paths)]].is_cut = True
            case ("score", int(which), int(score)):
                for side in lab.sides:
                    side.session.score_paths({paths[which % len(paths)]: score}, lab.now)
                lab.pump()
            case other:
                raise AssertionError(other)
    lab.run(0.2)
    lab.attach(score=10)
    lab.run(60)
    for (index, stream), messages in sent.items():
        assert lab.sides[1 - index].messages[stream] == messages
    for side in lab.sides:
        assert side.session.state is SessionState.OPEN
        assert side.session.room_bytes(Stream.BULK) == lab.limits.bulk_queue_bytes


def test_better_path_is_taken_in_place_and_nothing_is_lost_or_doubled() -> None:
    lab = Lab()
    slow = lab.attach(Wire(delay_s=0.1, bytes_per_s=2_000_000), score=1)
    sent = [message(Stream.BULK, n, 500_000) for n in range(8)]
    for item in sent:
        assert lab.send(0, Stream.BULK, item)
    lab.run(0.5)
    fast = lab.attach(Wire(delay_s=0.001), score=5)
    assert lab.sides[0].session.active_path == fast
    lab.run(1)
    assert lab.sides[1].messages[Stream.BULK] == sent
    changes = [event for event in lab.sides[0].events if isinstance(event, ActivePathChanged)]
    assert [event.path_id for event in changes] == [slow, fast]


def test_closed_path_is_replaced_and_what_was_in_flight_is_sent_again_at_once() -> None:
    lab = Lab()
    first = lab.attach(Wire(delay_s=0.05), score=2)
    lab.attach(Wire(delay_s=0.05), score=1)
    sent = [message(Stream.BULK, n, 300_000) for n in range(10)]
    for item in sent:
        assert lab.send(0, Stream.BULK, item)
    lab.run(0.06)
    lab.wires[first].is_cut = True
    lab.detach(first, 0)
    lab.detach(first, 1)
    lab.run(0.9)
    assert lab.sides[1].messages[Stream.BULK] == sent


def test_nothing_waits_for_a_timeout_when_the_path_it_was_sent_over_is_closed() -> None:
    lab = Lab()
    first = lab.attach(score=2)
    lab.attach(score=1)
    lab.run(0.5)
    lab.wires[first].is_cut = True
    assert lab.send(0, Stream.CONTROL, b"the last one")
    lab.detach(first, 0)
    lab.run(0.1)
    assert lab.sides[1].messages[Stream.CONTROL] == [b"the last one"]


def test_nothing_waits_for_a_timeout_when_the_path_it_was_sent_over_falls_silent() -> None:
    lab = Lab()
    best = lab.attach(score=2)
    lab.attach(score=1)
    lab.run(1.5)  # Last heard at 1.02 s.
    lab.wires[best].is_cut = True
    lab.run(2.3)
    assert lab.send(0, Stream.CONTROL, b"the last one")
    lab.run(0.3)
    assert lab.sides[1].messages[Stream.CONTROL] == [b"the last one"]


def test_silent_path_gives_way_to_the_next_after_3_s_and_comes_back() -> None:
    lab = Lab()
    best = lab.attach(score=2)
    second = lab.attach(score=1)
    lab.run(2)
    lab.wires[best].is_cut = True
    lab.run(3.1)
    assert lab.sides[0].session.active_path == second
    assert lab.sides[0].session.is_live
    lab.wires[best].is_cut = False
    lab.run(1.1)
    assert lab.sides[0].session.active_path == best


def test_frames_lost_in_a_silent_reconnect_are_sent_again_without_a_switch() -> None:
    lab = Lab()
    path = lab.attach(Wire(delay_s=0.01))
    lab.run(0.5)
    lab.wires[path].is_cut = True
    sent = [message(Stream.CONTROL, n, 1000) for n in range(50)]
    for item in sent[:40]:
        assert lab.send(0, Stream.CONTROL, item)
    lab.run(0.1)
    lab.wires[path].is_cut = False
    for item in sent[40:]:
        assert lab.send(0, Stream.CONTROL, item)
    lab.run(0.2)
    assert lab.sides[1].messages[Stream.CONTROL] == sent


def test_lost_tail_is_found_when_a_later_ping_is_answered() -> None:
    lab = Lab()
    path = lab.attach(Wire(delay_s=0.01))
    lab.run(0.5)
    lab.wires[path].is_cut = True
    sent = [message(Stream.CONTROL, n, 1000) for n in range(50)]
    for item in sent:
        assert lab.send(0, Stream.CONTROL, item)
    lab.run(0.1)
    lab.wires[path].is_cut = False
    lab.run(1.2)
    assert lab.sides[1].messages[Stream.CONTROL] == sent


def test_path_that_takes_no_more_is_offered_the_frame_again_when_it_is_writable() -> None:
    lab = Lab()
    path = lab.attach()
    lab.run(0.5)
    lab.wires[path].refusal = 1.0
    assert lab.send(0, Stream.CONTROL, b"first")
    assert lab.send(0, Stream.CONTROL, b"second")
    lab.wires[path].refusal = 0.0
    lab.sides[0].session.path_writable(path)
    lab.pump()
    lab.run(0.02)
    assert lab.sides[1].messages[Stream.CONTROL] == [b"first", b"second"]


def test_control_overtakes_bulk_that_is_not_in_flight_yet() -> None:
    lab = Lab()
    lab.attach(Wire(delay_s=0.02, bytes_per_s=1_000_000))
    for number in range(4):
        assert lab.send(0, Stream.BULK, message(Stream.BULK, number, 1_000_000))
    lab.run(2)
    assert lab.send(0, Stream.CONTROL, b"urgent")
    lab.run(0.7)
    assert lab.sides[1].messages[Stream.CONTROL] == [b"urgent"]
    assert len(lab.sides[1].messages[Stream.BULK]) < 4


def test_slow_path_keeps_little_in_flight() -> None:
    lab = Lab()
    path = lab.attach(Wire(delay_s=0.02, bytes_per_s=1_000_000))
    for number in range(4):
        assert lab.send(0, Stream.BULK, message(Stream.BULK, number, 1_000_000))
    lab.run(2.5)
    waiting_s = lab.wires[path].busy_until[0] - lab.now
    assert 0.05 < waiting_s < 0.4


def test_long_fast_path_is_filled() -> None:
    lab = Lab()
    lab.attach(Wire(delay_s=0.02, bytes_per_s=50_000_000))
    started = lab.now
    sent = 0
    while lab.now < started + 4:
        while lab.send(0, Stream.BULK, bytes(1_000_000)):
            sent += 1
        lab.run(0.01)
    received = sum(len(item) for item in lab.sides[1].messages[Stream.BULK])
    assert received > 0.8 * 4 * 50_000_000


def test_frames_grow_with_the_rate_of_the_path_up_to_what_the_other_side_takes() -> None:
    def largest(bytes_per_s: float, takes: int) -> int:
        lab = Lab()
        path = lab.attach(Wire(delay_s=0.002, bytes_per_s=bytes_per_s), takes=takes)
        for number in range(40):
            lab.send(0, Stream.BULK, message(Stream.BULK, number, 1_000_000))
            lab.run(0.3)
        return lab.wires[path].largest

    assert largest(2e4, MAX_FRAME_BYTES) == INITIAL_FRAME_BYTES
    assert largest(1e6, MAX_FRAME_BYTES) == SMALL_FRAME_BYTES
    assert SMALL_FRAME_BYTES < largest(8e6, MAX_FRAME_BYTES) < MAX_FRAME_BYTES
    assert largest(1e9, MAX_FRAME_BYTES) == MAX_FRAME_BYTES
    assert largest(1e9, SMALL_FRAME_BYTES) == SMALL_FRAME_BYTES
