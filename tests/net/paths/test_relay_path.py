"""Paths over real relays on loopback."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from daemon.control.describe import describe_peers, describe_relay
from daemon.control.trouble import of_connections
from daemon.net.path_kind import PathKind
from daemon.net.paths.relayed.seeker import NO_RELAY
from daemon.net.peers.peer_status import NONE_YET
from protocol.servers.relay_messages import FrameKind
from protocol.statements.peer_record import VerifiedRecord
from protocol.uri import HostPort, ServerUri
from tests.eventually import eventually
from tests.live_server import ServerProcess
from tests.net.paths.bulk_stream import BulkStream
from tests.net.swarm_peers import Node, in_order_of_id, introduce, make_swarm, running
from tests.relay.relay_live import serving
from tests.relay.tapped_relay import tapped_relay
from transport.curve import CurveKeys

ANY_PORT = HostPort("127.0.0.1", 0)
EVERYWHERE = HostPort("0.0.0.0", 0)
"""A peer that listens there names no address of its own, so that nobody can dial it."""


@asynccontextmanager
async def two_peers(*relays: ServerUri) -> AsyncIterator[tuple[Node, Node]]:
    """Two that know of each other and of the relays, and cannot dial each other."""
    low, high = in_order_of_id(2)
    swarm = make_swarm(relays=relays)
    async with (
        running(low, swarm=swarm, listen=EVERYWHERE) as first,
        running(high, swarm=swarm, listen=EVERYWHERE) as second,
    ):
        introduce(first, second)
        yield first, second


def path_of(node: Node) -> str:
    (link,) = node.network.links()
    return link.kind


def why_no_relay(node: Node) -> str:
    """What is told of the only other peer."""
    (link,) = node.network.links()
    return link.reason.partition("relay: ")[2]


def advice(node: Node) -> str:
    """What ``p2pd status`` says to do about a peer to whom there is no path."""
    relays = [describe_relay(relay) for relay in node.network.relays()]
    peers = describe_peers(node.network.links(), rounds=None, refusals=node.refusals)
    fixes = {item.code: item.fix for item in of_connections([], relays, peers)}
    return fixes["peer-unreachable"]


async def exchange(state_dir: Path) -> None:
    async with serving(state_dir) as uri, two_peers(uri) as (first, second):
        await eventually(lambda: first.sees(second) and second.sees(first))
        for number in range(100):
            assert first.network.send(second.peer_id, b"control %d" % number)
        assert second.network.send_bulk(first.peer_id, bytes(1_000_000))
        await eventually(lambda: len(second.messages) == 100 and len(first.bulk) == 1)
        assert second.messages == [(first.peer_id, b"control %d" % n) for n in range(100)]
        (status,) = first.network.links()
        assert (status.kind, status.address) == ("relay", f"relay {uri.address}")
        assert first.network.own_record.relays == (str(uri),)


async def test_peers_that_cannot_dial_each_other_meet_over_the_relay(tmp_path: Path) -> None:
    await exchange(tmp_path)


def test_the_same_under_uvloop(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(exchange(tmp_path))


async def test_first_message_comes_soon_even_if_only_the_higher_id_knows_the_other(
    tmp_path: Path,
) -> None:
    low, high = in_order_of_id(2)
    async with AsyncExitStack() as stack:
        uri = await stack.enter_async_context(serving(tmp_path))
        swarm = make_swarm(relays=(uri,))
        first, second = [
            await stack.enter_async_context(running(keys, swarm=swarm, listen=EVERYWHERE))
            for keys in (low, high)
        ]
        # Only found when it calls, by its key: as when its record is still on the way.
        record = second.record()

        async def find_record(curve_key: bytes) -> VerifiedRecord | None:
            return record if curve_key == second.keys.curve.public else None

        first.around.find = find_record
        second.network.add_record(first.record())
        await eventually(lambda: first.sees(second) and second.sees(first))


async def test_call_of_a_key_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri:
        low, stranger = in_order_of_id(2)
        swarm = make_swarm(relays=(uri,))
        async with (
            running(low, swarm=swarm, listen=EVERYWHERE) as first,
            running(stranger, swarm=swarm, listen=EVERYWHERE) as second,
        ):
            second.network.add_record(first.record())
            await eventually(lambda: "forbidden" in second.network.links()[0].reason)
            assert not first.network.links()


async def test_banned_peer_gets_no_link(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri:
        low, high = in_order_of_id(2)
        swarm = make_swarm(relays=(uri,), banned=(high.identity.public_key,))
        async with (
            running(low, swarm=swarm, listen=EVERYWHERE) as first,
            running(high, swarm=make_swarm(relays=(uri,)), listen=EVERYWHERE) as second,
        ):
            introduce(first, second)
            await eventually(lambda: "forbidden" in second.network.links()[0].reason)
            assert not first.network.links()


@pytest.mark.parametrize("first_is_cut_off", [True, False])
async def test_relay_that_only_one_of_the_two_reaches_is_passed_over(
    tmp_path: Path, first_is_cut_off: bool
) -> None:
    nobody = HostPort("127.0.0.1", 1)
    async with serving(tmp_path / "one") as one, serving(tmp_path / "two") as two:
        whole = make_swarm(relays=(one, two))
        cut_off = make_swarm(relays=(ServerUri(one.key, nobody), two))
        swarms = (cut_off, whole) if first_is_cut_off else (whole, cut_off)
        low, high = in_order_of_id(2)
        async with (
            running(low, swarm=swarms[0], listen=EVERYWHERE) as first,
            running(high, swarm=swarms[1], listen=EVERYWHERE) as second,
        ):
            introduce(first, second)
            await eventually(lambda: first.sees(second) and second.sees(first))
            for node in (first, second):
                (link,) = node.network.links()
                assert link.address == f"relay {two.address}"


async def test_stranger_is_refused_at_every_relay(tmp_path: Path) -> None:
    async with serving(tmp_path / "one") as one, serving(tmp_path / "two") as two:
        low, stranger = in_order_of_id(2)
        swarm = make_swarm(relays=(one, two))
        async with (
            running(low, swarm=swarm, listen=EVERYWHERE) as first,
            running(stranger, swarm=swarm, listen=EVERYWHERE) as second,
        ):
            second.network.add_record(first.record())
            await eventually(lambda: second.network.links()[0].reason.count("forbidden") == 2)
            reason = second.network.links()[0].reason
            assert all(str(uri.address) in reason for uri in (one, two))
            assert not first.network.links()


async def test_transfer_goes_on_over_another_relay_when_one_is_killed(tmp_path: Path) -> None:
    processes = [ServerProcess("relay", tmp_path / "one"), ServerProcess("relay", tmp_path / "two")]
    uris = [await process.start() for process in processes]
    try:
        async with two_peers(*uris) as (first, second):
            await eventually(lambda: first.sees(second) and second.sees(first))
            stream = BulkStream(first, second, 60)
            await eventually(lambda: stream.received >= 10)
            used = first.network.links()[0].address
            (number,) = [n for n, uri in enumerate(uris) if used == f"relay {uri.address}"]
            processes[number].kill()
            at_kill = stream.received
            await eventually(lambda: stream.received >= at_kill + 5)
            await eventually(lambda: stream.is_complete)
            assert first.network.links()[0].address == f"relay {uris[1 - number].address}"
            assert first.log == [f"up {second.peer_id}"]
            assert second.log == [f"up {first.peer_id}"]
    finally:
        for process in processes:
            process.kill()


async def test_transfer_moves_from_the_relay_to_a_direct_path_and_stays_whole(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as uri, two_peers(uri) as (first, second):
        await eventually(lambda: first.sees(second) and second.sees(first))
        stream = BulkStream(first, second)
        await eventually(lambda: stream.received >= 10)
        assert path_of(first) == path_of(second) == "relay"
        for node in (first, second):  # Both on this machine: else loopback is not dialled.
            node.network.advertise((f"127.0.0.1:{node.network.listen_address.port}",))
        first.network.add_record(second.record())
        await eventually(lambda: path_of(first) == path_of(second) == "direct")
        stream.end()
        await eventually(lambda: stream.is_complete)
        assert first.log == [f"up {second.peer_id}"]
        assert second.log == [f"up {first.peer_id}"]


async def test_newer_statement_moves_the_swarm_to_other_relays(tmp_path: Path) -> None:
    async with (
        serving(tmp_path / "old") as old,
        serving(tmp_path / "new") as new,
        two_peers(old) as (first, second),
    ):
        await eventually(lambda: first.sees(second) and second.sees(first))
        newer = make_swarm(version=2, relays=(new,))
        for node in (first, second):
            node.network.replace_statement(newer)
        await eventually(
            lambda: (
                [node.network.links()[0].address for node in (first, second)]
                == [f"relay {new.address}"] * 2
            )
        )
        assert first.network.send(second.peer_id, b"over the new one")
        await eventually(lambda: len(second.messages) == 1)
        assert first.network.own_record.relays == (str(new),)


async def test_relay_that_is_away_at_the_start_is_used_once_it_is_there(tmp_path: Path) -> None:
    process = ServerProcess("relay", tmp_path)
    uri = await process.start()
    process.kill()
    async with two_peers(uri) as (first, second):
        try:
            await eventually(
                lambda: any(relay.state == "unreachable" for relay in first.network.relays())
            )
            assert await process.start() == uri
            await eventually(lambda: first.sees(second) and second.sees(first))
        finally:
            process.kill()


async def test_without_a_relay_in_the_swarm_that_is_the_reason_until_there_is_one(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as uri, two_peers() as (first, second):
        await eventually(lambda: path_of(first) == path_of(second) == PathKind.FAILED)
        assert why_no_relay(first) == why_no_relay(second) == NO_RELAY
        assert "the swarm names no relay" in advice(first)
        for node in (first, second):
            node.network.replace_statement(make_swarm(version=2, relays=(uri,)))
        await eventually(lambda: first.sees(second) and second.sees(first))


async def test_relay_that_never_answered_is_the_reason_as_status_shows_it() -> None:
    nobody = ServerUri(CurveKeys.generate().public, HostPort("127.0.0.1", 1))
    async with two_peers(nobody) as peers:
        for node in peers:
            await eventually(lambda: path_of(node) == PathKind.FAILED)  # noqa: B023
            await eventually(lambda: why_no_relay(node) != NONE_YET)  # noqa: B023
            (relay,) = map(describe_relay, node.network.relays())
            assert why_no_relay(node) == f"127.0.0.1:1 is unreachable: {relay.reason}"
            assert f"this peer does not reach {nobody}: check that it runs" in advice(node)


async def test_relay_that_is_killed_is_the_reason_until_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relay.client.client")
    process = ServerProcess("relay", tmp_path)
    uri = await process.start()
    try:
        async with two_peers(uri) as (first, second):
            await eventually(lambda: first.sees(second) and second.sees(first))
            process.kill()
            told = f"{uri.address} is unreachable: nobody answers there"
            for node in (first, second):
                await eventually(lambda: why_no_relay(node) == told)  # noqa: B023
            assert await process.start() == uri
            await eventually(lambda: path_of(first) == path_of(second) == "relay")
    finally:
        process.kill()
    said = [
        record.getMessage() for record in caplog.records if record.name == "relay.client.client"
    ]
    up, down = f"relay {uri.address}: ready", f"relay {uri.address}: unreachable: "
    assert said.count(up) == 4
    assert sum(line.startswith(down) for line in said) == 2
    assert len(said) == 6


async def test_peer_that_is_at_another_relay_is_told_as_not_there(tmp_path: Path) -> None:
    async with serving(tmp_path / "one") as one, serving(tmp_path / "two") as two:
        low, high = in_order_of_id(2)
        async with (
            running(low, swarm=make_swarm(relays=(one,)), listen=EVERYWHERE) as first,
            running(high, swarm=make_swarm(relays=(two,)), listen=EVERYWHERE) as second,
        ):
            introduce(first, second)
            for node, uri in ((first, one), (second, two)):
                told = f"{uri.address}: the peer is not at this relay"
                await eventually(lambda: why_no_relay(node) == told)  # noqa: B023
                assert "a relay that both reach" in advice(node)


async def test_relay_that_swallows_one_of_its_ports_is_reached_at_the_other(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as uri:
        nowhere = ServerUri(uri.key, HostPort("127.0.0.1", 1))
        async with two_peers(nowhere, uri) as (first, second):
            await eventually(lambda: first.sees(second) and second.sees(first))


async def test_operator_of_the_relay_sees_nothing_but_ciphertext() -> None:
    control, bulk = b"what peers say to each other" * 10, b"model bytes, in the clear " * 40_000
    async with tapped_relay() as relay, two_peers(relay.uri) as (first, second):
        await eventually(lambda: first.sees(second) and second.sees(first))
        assert first.network.send(second.peer_id, control)
        assert second.network.send_bulk(first.peer_id, bulk)
        await eventually(lambda: len(second.messages) == 1 and len(first.bulk) == 1)
        assert first.bulk == [(second.peer_id, bulk)]
    captured = b"".join(relay.seen)
    assert len(captured) > len(bulk)
    between_peers = b"".join(frame for frame in relay.seen if frame[0] == FrameKind.DATA)
    for words in (b"what peers say", b"in the clear", b"hello", b"peer 0", b"peer 1"):
        assert words not in between_peers, words
