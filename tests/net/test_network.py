"""Real networks on loopback: who gets a session, and what passes through it."""

import asyncio
from hashlib import sha256

import pytest
import uvloop

from daemon.net.paths.direct.path import DialledPath
from daemon.net.peers.memory_share import MAX_QUEUE_BYTES, MAX_WINDOW_BYTES
from protocol.identity import Identity
from protocol.peers.session_frames import (
    MAX_BULK_BYTES,
    CloseCode,
    Hello,
    Stream,
    encode_data,
    encode_frame,
)
from protocol.statements.admission import prove_admission
from protocol.statements.peer_record import VerifiedRecord
from protocol.statements.swarm import Swarm
from tests.eventually import eventually
from tests.net.rogue import rogue_at
from tests.net.swarm_peers import SWARM, Keys, Node, in_order_of_id, introduce, make_swarm, running

UNUSED_PORT = 1


def reason(node: Node, other: Keys) -> str:
    (text,) = [link.reason for link in node.network.links() if link.peer_id == other.peer_id]
    return text


async def exchange_in_both_directions() -> None:
    low, high = in_order_of_id(2)
    async with running(low) as first, running(high) as second:
        introduce(first, second)
        await eventually(lambda: first.sees(second) and second.sees(first))
        for number in range(100):
            assert first.network.send(second.peer_id, b"control %d" % number)
        assert second.network.send_bulk(first.peer_id, bytes(1_000_000))
        await eventually(lambda: len(second.messages) == 100 and len(first.bulk) == 1)
        assert second.messages == [(first.peer_id, b"control %d" % n) for n in range(100)]
        assert first.bulk == [(second.peer_id, bytes(1_000_000))]
        assert first.log == [f"up {second.peer_id}"]
        await eventually(lambda: first.network.links()[0].rtt_ms is not None)
        (status,) = first.network.links()
        assert status.kind == "direct"
        assert status.reason == "there is no better kind"
        assert status.address == str(second.network.listen_address)
        assert status.bytes_received > 1_000_000


async def test_two_peers_connect_and_exchange_messages_in_order() -> None:
    await exchange_in_both_directions()


def test_the_same_under_uvloop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(exchange_in_both_directions())


async def test_three_peers_all_connect() -> None:
    one, two, three = in_order_of_id(3)
    async with running(one) as first, running(two) as second, running(three) as third:
        nodes = (first, second, third)
        introduce(*nodes)
        await eventually(
            lambda: all(node.sees(*[n for n in nodes if n is not node]) for node in nodes)
        )
        for node in nodes:
            for other in nodes:
                if other is not node:
                    assert node.network.send(other.peer_id, node.peer_id.encode())
        await eventually(lambda: all(len(node.messages) == 2 for node in nodes))
        for node in nodes:
            assert all(message == peer_id.encode() for peer_id, message in node.messages)


async def test_peer_with_the_higher_id_dials_too_when_the_other_cannot() -> None:
    low, high = in_order_of_id(2)
    async with running(low) as first, running(high, advertise=("127.0.0.1:1",)) as second:
        introduce(first, second)
        await eventually(lambda: first.sees(second) and second.sees(first))


# Several addresses and paths


async def test_addresses_that_nobody_or_somebody_else_answers_at_are_passed_over() -> None:
    low, high, other = in_order_of_id(3)
    async with running(low) as first, running(high) as second, running(other) as third:
        first.network.add_record(
            second.keys.record(
                f"127.0.0.1:{UNUSED_PORT}",
                str(third.network.listen_address),
                str(second.network.listen_address),
            )
        )
        second.network.add_record(first.keys.record())
        await eventually(lambda: first.sees(second))
        assert third.network.live_peers() == frozenset()


@pytest.mark.parametrize("lower_dials_last", [True, False])
async def test_of_two_direct_paths_both_ends_keep_the_one_that_the_lower_id_opened(
    lower_dials_last: bool,
) -> None:
    low, high = in_order_of_id(2)
    dialler, listener = (low, high) if lower_dials_last else (high, low)
    async with running(dialler) as first, running(listener, advertise=("127.0.0.1:1",)) as second:
        # The record without an address leaves the first path to the other side.
        first.network.add_record(second.record())
        second.network.add_record(first.record())
        await eventually(lambda: first.sees(second) and second.sees(first))
        path = DialledPath(
            first.context,
            second.network.listen_address,
            dialler.curve,
            peer_id=second.peer_id,
            curve_key=listener.curve.public,
            owner=first.network.path_owner,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(path.run())
            for number in range(200):
                assert first.network.send(second.peer_id, b"%d" % number)
                assert second.network.send(first.peer_id, b"%d" % number)
                await asyncio.sleep(0)
            expected = [b"%d" % number for number in range(200)]
            await eventually(
                lambda: (
                    [message for _, message in second.messages] == expected
                    and [message for _, message in first.messages] == expected
                )
            )
            await eventually(lambda: path.has_ended is not lower_dials_last)
            at_listener = str(second.network.listen_address)
            await eventually(
                lambda: (
                    [link.address == at_listener for link in first.network.links()]
                    == [lower_dials_last]
                )
            )
            path.close("done")


# Who is not let in


async def test_unknown_key_is_refused_and_told_so() -> None:
    low, high = in_order_of_id(2)
    asked: list[bytes] = []

    async def find(curve_key: bytes) -> None:
        asked.append(curve_key)

    async with running(low) as first, running(high) as second:
        second.around.find = find
        first.network.add_record(second.record())
        await eventually(lambda: "does not let this peer's key in" in reason(first, high))
        assert asked == [low.curve.public]
        assert second.network.links() == []


async def test_unknown_key_is_let_in_once_its_record_is_found() -> None:
    low, high = in_order_of_id(2)
    async with running(low) as first, running(high) as second:
        found = first.record()

        async def find(curve_key: bytes) -> VerifiedRecord | None:
            await asyncio.sleep(0.1)
            return found if curve_key == low.curve.public else None

        second.around.find = find
        first.network.add_record(second.record())
        await eventually(lambda: first.sees(second) and second.sees(first))


async def test_record_search_without_an_answer_refuses_within_3_s() -> None:
    low, high = in_order_of_id(2)

    async def find(curve_key: bytes) -> None:
        await asyncio.sleep(60)

    async with running(low) as first, running(high) as second:
        second.around.find = find
        first.network.add_record(second.record())
        await eventually(lambda: "does not let this peer's key in" in reason(first, high))


async def test_impostor_without_the_key_is_not_believed() -> None:
    low, impostor, absent = in_order_of_id(3)
    async with running(low) as first, running(impostor) as second:
        second.network.add_record(first.record())
        first.network.add_record(absent.record(str(second.network.listen_address)))
        await eventually(lambda: "does not hold the expected key" in reason(first, absent))
        assert absent.peer_id not in first.network.live_peers()


async def test_impostor_with_the_key_but_another_identity_is_not_believed() -> None:
    low, impostor, absent = in_order_of_id(3)
    async with running(low) as first, running(impostor) as second:
        second.network.add_record(first.record())
        first.network.add_record(
            absent.record(str(second.network.listen_address), curve_key=impostor.curve.public)
        )
        await eventually(lambda: "meant for another reader" in reason(first, absent))
        assert absent.peer_id not in first.network.live_peers()
        assert second.refusals.by_code() == {"path-identity": 1}


async def test_peer_without_an_invite_is_neither_dialled_nor_remembered() -> None:
    low, high = in_order_of_id(2)
    closed = make_swarm(is_open=False)
    async with running(low, swarm=closed) as first, running(high, swarm=closed) as second:
        assert not first.network.add_record(second.record())
        assert not second.network.add_record(first.record())
        assert first.network.links() == second.network.links() == []


async def test_peer_that_is_not_admitted_does_not_get_in_and_hears_what_that_may_mean() -> None:
    low, high = in_order_of_id(2)
    closed = make_swarm(is_open=False)
    async with running(low) as first, running(high, swarm=closed) as second:
        second.around.find = lambda key: found(first.record())
        first.network.add_record(second.record())
        await eventually(lambda: "its invite may have expired" in reason(first, high))
        assert second.network.links() == []


async def test_invite_travels_in_the_record_and_lets_its_peer_in() -> None:
    low, high = in_order_of_id(2)
    token = Identity(sha256(b"token").digest())
    closed = make_swarm(is_open=False, tokens=(token.public_key,))
    proofs = [
        prove_admission(sha256(b"token").digest(), closed.swarm_id, keys.peer_id)
        for keys in (low, high)
    ]
    async with (
        running(low, swarm=closed, proof=proofs[0]) as first,
        running(high, swarm=closed, proof=proofs[1]) as second,
    ):
        introduce(first, second)
        await eventually(lambda: first.sees(second) and second.sees(first))


async def found(record: VerifiedRecord) -> VerifiedRecord | None:
    return record


async def test_banned_peer_loses_its_session_and_gets_no_other() -> None:
    low, high = in_order_of_id(2)
    async with running(low) as first, running(high) as second:
        introduce(first, second)
        await eventually(lambda: first.sees(second) and second.sees(first))
        newer: Swarm = make_swarm(version=2, banned=(low.identity.public_key,))
        second.network.replace_statement(newer)
        assert (
            second.log[-1]
            == f"down {low.peer_id}: denied: {low.peer_id} was banned by the swarm's founder"
        )
        await eventually(lambda: "banned" in reason(first, high))
        assert not second.network.add_record(first.record())
        assert second.network.links() == []


async def test_hello_of_another_swarm_is_not_believed() -> None:
    low, high = in_order_of_id(2)
    async with running(low, swarm=make_swarm(name="other")) as first, running(high) as second:
        second.network.add_record(low.record("127.0.0.1:1"))
        first.network.add_record(
            high.record(str(second.network.listen_address), swarm=make_swarm(name="other"))
        )
        await eventually(lambda: "for swarm" in reason(first, high))
        assert second.network.live_peers() == frozenset()


# Peers that break the protocol


OVERRUN = [
    encode_data(Stream.BULK, sequence, first=False, last=False, payload=bytes(250_000))
    for sequence in range(1, 2 + MAX_WINDOW_BYTES // 250_000)
]


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([b"rubbish"], "malformed"),
        ([b"\x01"], "data frame of 1 bytes"),
        ([encode_frame(Hello(b""))], "malformed"),
        ([encode_data(Stream.BULK, 2**50, first=True, last=True, payload=b"")], "credit overrun"),
        (OVERRUN, "credit overrun"),
    ],
)
async def test_peer_that_breaks_the_protocol_loses_its_session_and_is_told_why(
    frames: list[bytes], complaint: str
) -> None:
    mine, rogue_keys = in_order_of_id(2)
    async with running(mine) as node, rogue_at(node, rogue_keys) as rogue:
        for frame in frames:
            rogue.send(frame)
        await eventually(lambda: rogue.closed_with is not None)
        assert rogue.closed_with is not None
        assert rogue.closed_with.code == CloseCode.PROTOCOL
        assert complaint in rogue.closed_with.text
        assert node.network.live_peers() == frozenset()
        assert node.refusals.of(rogue_keys.peer_id) == 1
        assert complaint in node.log[-1]


async def test_frames_before_the_hello_go_nowhere() -> None:
    mine, rogue_keys = in_order_of_id(2)
    before, after = (
        encode_data(Stream.CONTROL, 0, first=True, last=True, payload=payload)
        for payload in (b"before", b"after")
    )
    async with running(mine) as node, rogue_at(node, rogue_keys, before_hello=before) as rogue:
        rogue.send(after)
        await eventually(lambda: node.messages == [(rogue_keys.peer_id, b"after")])


# Coming and going


@pytest.mark.parametrize("leaver_dialled", [True, False])
async def test_peer_that_leaves_is_down_at_once(leaver_dialled: bool) -> None:
    leaver, stayer = in_order_of_id(2) if leaver_dialled else in_order_of_id(2)[::-1]
    async with running(stayer) as first:
        async with running(leaver) as second:
            introduce(first, second)
            await eventually(lambda: first.sees(second) and second.sees(first))
        await eventually(lambda: first.log[-1] != f"up {leaver.peer_id}")
        assert first.log == [f"up {leaver.peer_id}", f"down {leaver.peer_id}: left"]
        assert not first.network.send(leaver.peer_id, b"into the void")
        assert first.network.bulk_room(leaver.peer_id) == 0


async def test_peer_that_comes_back_gets_a_new_session_without_old_messages() -> None:
    low, high = in_order_of_id(2)
    async with running(low) as first:
        async with running(high) as second:
            introduce(first, second)
            address = second.network.listen_address
            await eventually(lambda: first.sees(second))
        await eventually(lambda: not first.network.live_peers())
        async with running(high, listen=address) as again:
            again.network.add_record(first.record())
            await eventually(lambda: first.sees(again) and again.sees(first))
            assert first.network.send(high.peer_id, b"new")
            await eventually(lambda: len(again.messages) == 1)
            assert again.messages == [(low.peer_id, b"new")]


async def test_peer_that_left_in_good_order_is_not_listed_and_not_dialled_until_it_is_back() -> (
    None
):
    low, high = in_order_of_id(2)
    async with running(low) as first:
        async with running(high) as second:
            introduce(first, second)
            await eventually(lambda: first.sees(second))
            old_record = second.record()
            assert first.network.send_bulk(high.peer_id, bytes(1_000_000))
            await eventually(lambda: len(second.bulk) == 1)
            address = second.network.listen_address
        await eventually(lambda: first.network.links() == [])
        first.network.add_record(old_record)  # As a rendezvous would that does not know.
        assert first.network.links() == []
        async with running(high, listen=address) as again:
            introduce(first, again)
            await eventually(lambda: first.sees(again))
            (link,) = first.network.links()
            assert link.peer_id == high.peer_id
            assert link.bytes_sent < 1_000_000  # As of a peer that was never here.
            assert first.network.traffic.total.sent > 1_000_000  # But it is still counted.


async def test_removed_peer_is_forgotten_once_it_is_gone() -> None:
    low, high = in_order_of_id(2)
    async with running(low) as first:
        async with running(high) as second:
            introduce(first, second)
            await eventually(lambda: first.sees(second))
            first.network.remove_record(high.peer_id)
            assert first.network.send(high.peer_id, b"still")
            await eventually(lambda: second.messages == [(low.peer_id, b"still")])
            assert first.sees(second)
            assert first.network.links() != []
        await eventually(lambda: first.network.links() == [])
        assert first.network.links() == []


async def test_newest_record_counts() -> None:
    low, high = in_order_of_id(2)
    async with running(low) as first:
        first.network.add_record(high.record("127.0.0.1:1", sequence=5))
        first.network.add_record(high.record("127.0.0.1:2", sequence=4))
        assert first.network.links()[0].address == "127.0.0.1:1"
        first.network.add_record(high.record("127.0.0.1:3", sequence=6))
        assert first.network.links()[0].address == "127.0.0.1:3"
        first.network.add_record(low.record("127.0.0.1:4"))
        assert len(first.network.links()) == 1


async def test_own_record_names_the_real_port() -> None:
    async with running(Keys(1), advertise=("192.0.2.1:0", "192.0.2.2:700")) as node:
        port = node.network.listen_address.port
        assert node.network.addresses == (f"192.0.2.1:{port}", "192.0.2.2:700")
        assert node.record().record.addresses == node.network.addresses
        node.network.advertise(("192.0.2.3:0",))
        assert node.record().record.addresses == (f"192.0.2.3:{port}",)
    assert SWARM.swarm_id == node.record().swarm


# Bounds


async def test_bulk_beyond_the_queue_is_refused_and_room_is_told_when_it_is_back() -> None:
    low, high = in_order_of_id(2)
    told: list[str] = []
    async with running(low) as first, running(high) as second:
        first.on_bulk_room = told.append
        introduce(first, second)
        await eventually(lambda: first.sees(second))
        sent = 0
        while first.network.send_bulk(second.peer_id, bytes(MAX_BULK_BYTES)):
            sent += 1
        assert sent == MAX_QUEUE_BYTES // MAX_BULK_BYTES
        assert first.network.bulk_room(second.peer_id) < MAX_BULK_BYTES
        await eventually(lambda: told == [second.peer_id])
        assert first.network.bulk_room(second.peer_id) >= MAX_BULK_BYTES
        await eventually(lambda: len(second.bulk) == sent)
