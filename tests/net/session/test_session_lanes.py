"""Paths of one kind are used together: bulk goes over all of them, and none is waited for."""

import pytest

from daemon.net.session import ActivePathChanged, PeerDown, SessionLimits
from protocol.peers.lane_messages import MAX_LANES
from protocol.peers.session_frames import Stream
from tests.net.session.session_lab import Lab, Wire

RATE = 200_000
"""Of one lane, bytes a second."""
PIECE = 100_000


def slow() -> Wire:
    return Wire(delay_s=0.05, bytes_per_s=RATE)


def carry(lab: Lab, seconds: float, *, source: int = 0) -> float:
    """Keep one side busy for so long; bytes a second that arrived, after it was seen that all that
    was taken arrives, once and in order."""
    sink = lab.sides[1 - source].messages[Stream.BULK]
    arrived = len(sink)
    taken: list[bytes] = []
    end = lab.now + seconds
    while lab.now < end:
        while lab.send(source, Stream.BULK, piece := len(taken).to_bytes(4, "big") * (PIECE // 4)):
            taken.append(piece)
        lab.run(0.05)
    rate = (len(sink) - arrived) * PIECE / seconds
    lab.run(60)
    assert sink[arrived:] == taken
    return rate


def test_lanes_carry_as_much_as_all_of_them_can() -> None:
    lab = Lab()
    lanes = [lab.attach(slow(), kind="tcp") for _ in range(3)]
    assert carry(lab, 10) > 2.7 * RATE
    shares = [lab.wires[lane].carried_bytes for lane in lanes]
    assert min(shares) > 0.6 * max(shares)


def test_of_many_lanes_one_carries_no_bulk_so_that_nothing_else_waits_behind_it() -> None:
    lab = Lab()
    lanes = [lab.attach(slow(), kind="tcp") for _ in range(5)]
    assert carry(lab, 10) > 3.6 * RATE
    first, *others = (lab.wires[lane] for lane in lanes)
    assert first.largest < 1000
    assert min(one.carried_bytes for one in others) > 0.6 * max(one.carried_bytes for one in others)


@pytest.mark.parametrize("kinds", [("tcp", "udp"), (None, None)])
def test_paths_of_different_kinds_or_of_none_are_not_used_together(
    kinds: tuple[str | None, str | None],
) -> None:
    lab = Lab()
    first, second = (lab.attach(slow(), kind=kind) for kind in kinds)
    assert carry(lab, 10) < 1.05 * RATE
    # Pings and the answers to them.
    assert lab.wires[second].carried_bytes < 0.01 * lab.wires[first].carried_bytes


def test_faster_lane_carries_more() -> None:
    lab = Lab()
    slow_one = lab.attach(slow(), kind="tcp")
    fast = lab.attach(Wire(delay_s=0.05, bytes_per_s=4 * RATE), kind="tcp")
    assert carry(lab, 10) > 2.5 * RATE
    assert lab.wires[fast].carried_bytes > 2 * lab.wires[slow_one].carried_bytes


def test_control_goes_over_the_active_lane_alone() -> None:
    lab = Lab()
    lanes = [lab.attach(Wire(), kind="tcp") for _ in range(3)]
    before = [lab.wires[lane].carried_bytes for lane in lanes]
    sent = [bytes(1000) + bytes((number,)) for number in range(200)]
    for item in sent:
        assert lab.send(0, Stream.CONTROL, item)
    lab.run(0.5)
    assert lab.sides[1].messages[Stream.CONTROL] == sent
    carried = [lab.wires[lane].carried_bytes - was for lane, was in zip(lanes, before, strict=True)]
    assert carried[0] > 200_000
    assert max(carried[1:]) < 1000


def test_lane_that_falls_silent_costs_no_message_and_no_standstill() -> None:
    lab = Lab()
    lanes = [lab.attach(slow(), kind="tcp") for _ in range(5)]
    lab.at(lab.now + 3, lambda: setattr(lab.wires[lanes[2]], "is_cut", True))
    assert carry(lab, 20) > 2 * RATE
    assert not any(isinstance(event, PeerDown) for side in lab.sides for event in side.events)


def test_active_lane_that_is_lost_is_replaced_by_another() -> None:
    lab = Lab()
    lanes = [lab.attach(slow(), kind="tcp") for _ in range(3)]
    assert lab.sides[0].session.active_path == lanes[0]

    def lose() -> None:
        for index in (0, 1):
            lab.detach(lanes[0], index)

    lab.at(lab.now + 3, lose)
    assert carry(lab, 10) > 1.5 * RATE
    changes = [one for one in lab.sides[0].events if isinstance(one, ActivePathChanged)]
    assert changes == [ActivePathChanged(lanes[0]), ActivePathChanged(lanes[1])]


def test_lane_that_is_stuck_for_seconds_is_not_waited_for() -> None:
    """As a TCP connection is that lost a packet, and the packet that repeated it."""
    lab = Lab(limits=SessionLimits(bulk_window_bytes=2 << 20))
    lanes = [lab.attach(slow(), kind="tcp") for _ in range(5)]
    stuck = lab.wires[lanes[1]]

    def hold() -> None:
        for index in (0, 1):
            stuck.busy_until[index] = max(lab.now, stuck.busy_until[index]) + 2.5

    for second in range(2, 20, 5):
        lab.at(lab.now + second, hold)
    assert carry(lab, 20) > 2 * RATE


def test_both_directions_use_the_lanes_at_the_same_time() -> None:
    lab = Lab()
    for _ in range(5):
        lab.attach(slow(), kind="tcp")
    back = bytes(1_000_000)
    for _ in range(4):
        assert lab.send(1, Stream.BULK, back)
    assert carry(lab, 10) > 3.4 * RATE
    assert lab.sides[0].messages[Stream.BULK] == [back] * 4


def test_order_between_lanes_is_taken_for_no_loss() -> None:
    """One lane is much longer than the other: what comes over it later is not sent again."""
    lab = Lab()
    lanes = [
        lab.attach(Wire(delay_s=delay_s, bytes_per_s=5 * RATE), kind="tcp")
        for delay_s in (0.01, 0.35)
    ]
    carry(lab, 10)
    carried = sum(lab.wires[lane].carried_bytes for lane in lanes)
    needed = sum(len(message) for message in lab.sides[1].messages[Stream.BULK])
    assert carried < 1.05 * needed


def test_no_more_lanes_are_used_than_there_may_be() -> None:
    lab = Lab()
    lanes = [lab.attach(slow(), kind="tcp") for _ in range(MAX_LANES + 4)]
    carry(lab, 5)
    carried = [lab.wires[lane].largest > 10_000 for lane in lanes]
    assert carried == [False, *[True] * (MAX_LANES - 1), *[False] * 4]


def test_bulk_goes_over_as_few_of_the_lanes_as_the_owner_says() -> None:
    lab = Lab()
    lanes = [lab.attach(slow(), kind="tcp") for _ in range(6)]
    lab.sides[0].session.use_for_bulk(1)
    assert carry(lab, 5) < 1.05 * RATE
    assert [lab.wires[lane].largest > 10_000 for lane in lanes] == [*[False] * 5, True]
    lab.sides[0].session.use_for_bulk(4)
    assert 2.6 * RATE < carry(lab, 5) < 3.1 * RATE
    lab.sides[0].session.use_for_bulk(MAX_LANES)
    assert carry(lab, 5) > 4.4 * RATE


def test_slow_lane_does_not_drag_the_others_down() -> None:
    lab = Lab()
    rates = [RATE, RATE, RATE / 20, RATE, RATE]
    lanes = [lab.attach(Wire(delay_s=0.05, bytes_per_s=rate), kind="tcp") for rate in rates]
    assert carry(lab, 30) > 0.85 * 3 * RATE
    carried = sum(lab.wires[lane].carried_bytes for lane in lanes)
    needed = sum(len(message) for message in lab.sides[1].messages[Stream.BULK])
    assert carried < 1.1 * needed


def test_control_leaves_a_lane_that_is_stuck() -> None:
    lab = Lab()
    lanes = [lab.attach(Wire(), kind="tcp") for _ in range(5)]
    lab.wires[lanes[0]].busy_until[0] = lab.now + 8
    lab.run(2.5)  # Pings are sent each second, and one has to be late.
    assert lab.send(0, Stream.CONTROL, b"still here")
    lab.run(0.5)
    assert lab.sides[1].messages[Stream.CONTROL] == [b"still here"]


def test_lane_that_refuses_frames_leaves_bulk_where_it_belongs() -> None:
    lab = Lab(seed=5)
    lanes = [lab.attach(Wire(refusal=0.4 if at else 0.0), kind="tcp") for at in range(4)]
    carry(lab, 5)
    assert lab.wires[lanes[0]].largest < 1000
