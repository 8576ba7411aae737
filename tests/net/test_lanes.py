"""Peers on loopback that use several connections together, since one of them wants to."""

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

from daemon.net.path_kind import PathKind
from daemon.net.paths.budget import FEW_LANES, LanePlaces
from daemon.net.paths.direct.path import CROWDED, CROWDED_PATHS_PER_KEY, MAX_PATHS_PER_KEY
from daemon.net.paths.path import PathWish
from daemon.net.peers.lane_trial import STEPS
from daemon.net.peers.lanes import KEPT_S, NOTE_S, Lanes
from daemon.net.peers.path_end import PathEnd
from daemon.net.peers.path_preference import PathPreference
from daemon.net.peers.path_score import BEST_FIRST
from daemon.net.peers.reception import MAX_PATHS
from daemon.net.traffic import TrafficCounter
from protocol.peers.hello import Role
from protocol.peers.lane_messages import (
    LANES_MARK,
    MAX_LANES,
    LaneKind,
    LanesWanted,
    encode_lanes,
)
from tests.eventually import eventually
from tests.net.swarm_peers import Keys, Node, in_order_of_id, introduce, running


def ask(node: Node, other: Node, count: int) -> None:
    assert node.network.send(other.peer_id, encode_lanes(LanesWanted(count, LaneKind.DIRECT)))


def connections(*nodes: Node) -> list[int]:
    return [link.connections for node in nodes for link in node.network.links()]


async def test_who_is_asked_makes_connections_and_both_use_them() -> None:
    low, high = in_order_of_id(2)
    async with running(low) as first, running(high) as second:
        introduce(first, second)
        await eventually(lambda: first.sees(second) and second.sees(first))
        assert connections(first, second) == [1, 1]
        ask(second, first, 4)  # The lower id has dialled.
        await eventually(lambda: connections(first, second) == [4, 4])
        blobs = [bytes((number,)) * 1_000_000 for number in range(6)]
        await send_all(first, second, blobs)
        await send_all(second, first, blobs)
        assert first.log == [f"up {second.peer_id}"]
        ask(second, first, 1)
        await eventually(lambda: connections(first, second) == [1, 1])
        await send_all(first, second, blobs[:2])
        assert first.log == [f"up {second.peer_id}"]


async def send_all(source: Node, sink: Node, blobs: Sequence[bytes]) -> None:
    sink.bulk.clear()
    waiting = list(blobs)

    def all_came() -> bool:
        while waiting and source.network.send_bulk(sink.peer_id, waiting[0]):
            waiting.pop(0)
        return len(sink.bulk) == len(blobs)

    await eventually(all_came)
    assert sink.bulk == [(source.peer_id, blob) for blob in blobs]


async def test_who_asks_for_too_many_gets_the_most_there_are_at_most() -> None:
    low, middle, high = in_order_of_id(3)
    async with running(low) as first, running(middle) as second, running(high) as third:
        nodes = (first, second, third)
        introduce(*nodes)
        await eventually(lambda: all(len(one.network.live_peers()) == 2 for one in nodes))
        ask(second, first, 255)
        # With few descriptors there are places for fewer than the most.
        await eventually(lambda: max(connections(first)) > FEW_LANES)
        by_peer = {link.peer_id: link.connections for link in first.network.links()}
        assert by_peer[second.peer_id] <= MAX_LANES
        assert by_peer[third.peer_id] == 1
    assert MAX_LANES <= MAX_PATHS_PER_KEY


async def test_what_is_no_message_about_lanes_is_refused_and_costs_nothing_else() -> None:
    low, high = in_order_of_id(2)
    async with running(low) as first, running(high) as second:
        introduce(first, second)
        await eventually(lambda: first.sees(second) and second.sees(first))
        for rubbish in (b"", b"\x90", b"\x92\xacno_such_kind\x04", bytes(40)):
            assert first.network.send(second.peer_id, LANES_MARK + rubbish)
        assert first.network.send(second.peer_id, b"good morning")
        await eventually(lambda: bool(second.messages))
        assert second.messages == [(first.peer_id, b"good morning")]
        assert second.refusals.of(first.peer_id) == 4
        assert connections(first, second) == [1, 1]


async def test_last_word_of_who_changes_its_mind_without_end_counts() -> None:
    low, high = in_order_of_id(2)
    async with running(low) as first, running(high) as second:
        introduce(first, second)
        await eventually(lambda: first.sees(second) and second.sees(first))
        for _ in range(300):
            ask(second, first, 16)
            ask(second, first, 1)
        ask(second, first, 2)
        await eventually(lambda: connections(first) == [2])
        assert first.refusals.of(second.peer_id) == 0
        assert first.log == [f"up {second.peer_id}"]


def wish() -> PathWish:
    return PathWish(Keys(1).record("127.0.0.1:1"))


def test_what_was_asked_for_is_forgotten_unless_it_is_asked_again() -> None:
    wanted = wish()
    lanes = Lanes(wanted, TrafficCounter())

    def note(now: float) -> None:
        assert lanes.note(PathKind.DIRECT, 0, is_busy=False, count=1, now=now) is None

    lanes.ask(LanesWanted(8, LaneKind.DIRECT), 1000.0)
    note(1001.0)
    assert [wanted.most(kind) for kind in BEST_FIRST] == [8, 1, 1, 1]
    note(1000.0 + KEPT_S - 1)
    assert wanted.most(PathKind.DIRECT) == 8
    lanes.ask(LanesWanted(8, LaneKind.DIRECT), 1000.0 + KEPT_S - 1)
    note(1000.0 + KEPT_S + 1)
    assert wanted.most(PathKind.DIRECT) == 8
    note(1000.0 + 3 * KEPT_S)
    assert wanted.most(PathKind.DIRECT) == 1


def test_who_is_asked_acts_at_once_but_not_more_often_than_it_looks_itself() -> None:
    wanted = wish()
    lanes = Lanes(wanted, TrafficCounter())
    seen: list[int] = []
    for step in range(1000):  # Of a millisecond: 8 and 1 by turns.
        lanes.ask(LanesWanted(8 if step % 2 == 0 else 1, LaneKind.DIRECT), 1000 + step / 1000)
        if seen[-1:] != [wanted.most(PathKind.DIRECT)]:
            seen.append(wanted.most(PathKind.DIRECT))
    assert seen[0] == 8
    assert len(seen) <= 1 + 1 / NOTE_S


def test_another_session_keeps_what_was_found_out_about_the_line() -> None:
    wanted = wish()
    lanes = Lanes(wanted, TrafficCounter())

    def run(seconds: float, began: float) -> list[int]:
        said: list[int] = []
        for step in range(round(2 * seconds)):
            now, count = began + step / 2, wanted.most(PathKind.PUNCHED)
            arrived = round(250_000 * count * step)
            news = lanes.note(PathKind.PUNCHED, arrived, is_busy=True, count=count, now=now)
            if news is not None:
                said.append(news.count)
                lanes.said(news, now)
                assert wanted.most(PathKind.PUNCHED) == news.count
        return said

    assert run(60, 1000) == [STEPS[1], MAX_LANES]
    lanes.begin_anew()
    assert wanted.most(PathKind.PUNCHED) == 1
    assert run(10, 2000) == [MAX_LANES]


def test_who_goes_on_sending_asks_again_and_takes_it_back_when_it_is_needed_no_more() -> None:
    wanted = wish()
    lanes = Lanes(wanted, TrafficCounter())
    said: list[tuple[int, int]] = []

    def run(kind: PathKind, seconds: int, began: int) -> None:
        for second in range(began, began + seconds):
            count = wanted.most(kind)
            arrived = 500_000 * count * (second - 1000)
            news = lanes.note(kind, arrived, is_busy=True, count=count, now=float(second))
            if news is not None:
                # Told first: the other side does not take what comes for a spare one.
                assert wanted.most(PathKind.PUNCHED) == (said[-1][1] if said else 1)
                assert news.kind is LaneKind.PUNCHED
                said.append((second, news.count))
                lanes.said(news, float(second))

    run(PathKind.PUNCHED, 2000, 1000)
    numbers = [count for _, count in said]
    assert numbers[:2] == [STEPS[1], MAX_LANES]
    assert set(numbers[2:]) == {MAX_LANES}
    pauses = [later - earlier for (earlier, _), (later, _) in pairwise(said[1:])]
    assert max(pauses) < KEPT_S / 2
    run(PathKind.RELAY, 30, 3000)  # Measured, or found to be faster for a while.
    assert wanted.most(PathKind.PUNCHED) == MAX_LANES
    run(PathKind.RELAY, 60, 3030)
    assert said[-1][1] == wanted.most(PathKind.PUNCHED) == 1


def test_each_side_closes_what_it_opened_and_what_is_far_beyond() -> None:
    def ends(role: Role, count: int) -> list[PathEnd]:
        path = SimpleNamespace(kind=PathKind.DIRECT, channel=SimpleNamespace(role=role))
        return [cast("PathEnd", SimpleNamespace(path=path, number=at)) for at in range(count)]

    preference = PathPreference(Keys(1).peer_id, Keys(2).peer_id)
    dialled, accepted = ends(Role.INITIATOR, 6), ends(Role.RESPONDER, 40)
    assert preference.spare(dialled, dialled, 4) == [dialled[1], dialled[0]]
    assert (
        preference.spare(dialled, dialled[:1], 1)[0] is dialled[5]
    )  # The one that is heard stays.
    assert preference.spare(accepted[: 4 + MAX_LANES], [], 4) == []
    assert len(preference.spare(accepted, [], 4)) == 40 - 4 - MAX_LANES


def test_who_has_many_leaves_places_to_those_who_have_few() -> None:
    places = LanePlaces(10)
    with ExitStack() as stack:
        while places.has_room(beside=FEW_LANES):
            stack.enter_context(places.taken())
        assert places.has_room(beside=1)
        for _ in range(5):
            assert places.has_room(beside=FEW_LANES - 1)
            stack.enter_context(places.taken())
        assert not places.has_room(beside=1)
    assert places.has_room(beside=FEW_LANES)


def test_lanes_leave_room_for_other_peers() -> None:
    assert CROWDED + MAX_PATHS_PER_KEY < MAX_PATHS
    assert CROWDED_PATHS_PER_KEY < MAX_PATHS_PER_KEY
