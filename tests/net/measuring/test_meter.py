"""Two networks in one process measure what is between them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from daemon.net.measuring.results import SpeedResult
from daemon.net.path_kind import PathKind
from daemon.net.paths.relayed.seeker import NO_RELAY
from protocol.errors import TransportError
from protocol.identity import PeerId
from protocol.merkle import CHUNK_BYTES
from protocol.peers.measure_messages import Echo, TransferReport, encode_measure
from protocol.statements.swarm import Swarm
from protocol.uri import HostPort, ServerUri
from tests.eventually import eventually
from tests.net.memory_path import MemoryPath, connect
from tests.net.swarm_peers import SWARM, Node, in_order_of_id, introduce, make_swarm, running
from transport.curve import CurveKeys

NOWHERE = ("127.0.0.1:1",)
SIZE = 5_000_000
SOON_S = 30.0
"""Below what two transfers wait for a path that may still come about."""


@asynccontextmanager
async def two_nodes(
    *kinds: PathKind, swarm: Swarm = SWARM
) -> AsyncIterator[tuple[Node, Node, list[MemoryPath]]]:
    """Two peers that reach each other over paths of these kinds alone; the last is waited for."""
    low, high = in_order_of_id(2)
    async with (
        running(low, swarm=swarm, advertise=NOWHERE) as first,
        running(high, swarm=swarm, advertise=NOWHERE) as second,
    ):
        introduce(first, second)
        paths = [connect(first, second, kind=kind) for kind in kinds]
        best = min(kinds, key=list(PathKind).index)
        await eventually(lambda: first.sees(second) and second.sees(first))
        await eventually(
            lambda: all(node.network.links()[0].kind is best for node in (first, second))
        )
        yield first, second, paths


async def speed(one: Node, other: Node, kind: PathKind | None = None) -> SpeedResult:
    return await one.network.meter.speed(other.peer_id, SIZE, kind)


async def test_ping_tells_round_trip_and_path() -> None:
    async with two_nodes(PathKind.RELAY) as (first, second, _):
        result = await first.network.meter.ping(second.peer_id, 1000)
        assert result.path == "relay"
        assert result.rtt_ms >= 2
        assert result.address == "memory"
        assert "direct: 127.0.0.1:1" in result.reason
        assert first.messages == second.messages == []


async def test_ping_of_a_peer_that_is_not_there_says_why() -> None:
    low, high = in_order_of_id(2)
    async with running(low) as first:
        with pytest.raises(TransportError, match="no such peer"):
            await first.network.meter.ping(high.peer_id, 0)
        first.network.add_record(high.record(*NOWHERE))
        await eventually(lambda: first.network.links()[0].kind is PathKind.FAILED)
        with pytest.raises(TransportError, match=r"no path to it: direct: .* nobody answers"):
            await first.network.meter.ping(high.peer_id, 0)


async def test_speed_is_of_bytes_that_the_other_side_counted() -> None:
    async with two_nodes(PathKind.RELAY) as (first, second, _):
        result = await speed(first, second)
        assert result.bytes == result.requested_bytes == SIZE
        assert result.path == "relay"
        assert result.mb_per_s == pytest.approx(SIZE / 1e6 / result.seconds)
        assert second.bulk == []


async def test_named_path_carries_the_transfer_and_then_the_better_one_is_used_again() -> None:
    async with two_nodes(PathKind.ICE, PathKind.RELAY) as (first, second, (ice, relay)):
        before = ice.carried_bytes, relay.carried_bytes
        result = await speed(first, second, PathKind.RELAY)
        assert result.path == "relay"
        assert relay.carried_bytes - before[1] > SIZE
        assert ice.carried_bytes - before[0] < SIZE / 100
        assert first.network.links()[0].kind is PathKind.ICE
        assert second.network.links()[0].kind is PathKind.ICE
        assert (await speed(first, second)).path == "ice"


async def test_while_another_path_is_measured_peers_says_that_the_better_one_stands_by() -> None:
    async with two_nodes(PathKind.ICE, PathKind.RELAY) as (first, second, _):
        measuring = asyncio.ensure_future(speed(first, second, PathKind.RELAY))
        await eventually(lambda: first.network.links()[0].kind is PathKind.RELAY)
        reason = first.network.links()[0].reason
        await measuring
    assert reason.endswith("ice: stands by while another is measured")


async def test_training_traffic_goes_on_beside_a_transfer() -> None:
    async with two_nodes(PathKind.RELAY) as (first, second, _):
        measuring = asyncio.ensure_future(
            first.network.meter.speed(second.peer_id, 4 * SIZE, PathKind.RELAY)
        )
        await asyncio.sleep(0)
        assert first.network.send(second.peer_id, b"control")
        chunks = [bytes(CHUNK_BYTES)] * 3

        def serve(peer_id: PeerId) -> None:
            while chunks and first.network.bulk_room(peer_id) >= CHUNK_BYTES:
                first.network.send_bulk(peer_id, chunks.pop())

        first.on_bulk_room = serve
        await eventually(lambda: len(second.bulk) == 3)
        assert not measuring.done()
        assert (await measuring).bytes == 4 * SIZE
        assert second.messages == [(first.peer_id, b"control")]


async def test_path_lost_in_mid_transfer_is_told_and_nothing_is_left_behind() -> None:
    async with two_nodes(PathKind.ICE, PathKind.RELAY) as (first, second, (_, relay)):
        measuring = asyncio.ensure_future(  # More than what waits to be sent.
            first.network.meter.speed(second.peer_id, 4 * SIZE, PathKind.RELAY)
        )
        await eventually(lambda: relay.carried_bytes > SIZE / 10)
        relay.cut()
        with pytest.raises(TransportError, match="no relay path to it: there was one: cut"):
            await measuring
        assert (await speed(first, second)).bytes == SIZE


async def test_path_over_a_relay_that_cannot_be_is_not_waited_for() -> None:
    async with two_nodes(PathKind.ICE) as (first, second, _):
        async with asyncio.timeout(SOON_S):
            for _again in range(2):
                with pytest.raises(TransportError) as raised:
                    await speed(first, second, PathKind.RELAY)
                assert str(raised.value) == f"there is no relay path to it: {NO_RELAY}"
    nobody = ServerUri(CurveKeys.generate().public, HostPort("127.0.0.1", 1))
    async with two_nodes(PathKind.ICE, swarm=make_swarm(relays=(nobody,))) as (first, second, _):
        async with asyncio.timeout(SOON_S):
            for _again in range(2):
                with pytest.raises(TransportError, match=r"127\.0\.0\.1:1 is unreachable: nobody"):
                    await speed(first, second, PathKind.RELAY)


async def test_path_that_fails_again_as_before_is_not_waited_for_any_longer() -> None:
    async with two_nodes(PathKind.ICE) as (first, second, _):
        async with asyncio.timeout(SOON_S):
            for _again in range(2):
                with pytest.raises(TransportError, match=r"no direct path to it: 127\.0\.0\.1:1: "):
                    await speed(first, second, PathKind.DIRECT)


async def test_transfer_to_a_peer_that_leaves_ends() -> None:
    low, high = in_order_of_id(2)
    async with running(low, advertise=NOWHERE) as first:
        async with running(high, advertise=NOWHERE) as second:
            introduce(first, second)
            relay = connect(first, second)
            await eventually(lambda: first.sees(second))
            measuring = asyncio.ensure_future(speed(first, second))
            await eventually(lambda: relay.carried_bytes > SIZE / 10)
        with pytest.raises(TransportError):
            await measuring


async def test_second_transfer_to_the_same_peer_is_refused_while_one_goes_on() -> None:
    async with two_nodes(PathKind.RELAY) as (first, second, _):
        measuring = asyncio.ensure_future(speed(first, second))
        await asyncio.sleep(0)
        with pytest.raises(TransportError, match="already"):
            await speed(first, second)
        there, back = await asyncio.gather(measuring, speed(second, first))
        assert there.bytes == back.bytes == SIZE


async def test_malformed_messages_are_counted_and_unasked_ones_ignored() -> None:
    async with two_nodes(PathKind.RELAY) as (first, second, _):
        first.network.send(second.peer_id, encode_measure(Echo(1, b""))[:-1])
        await eventually(lambda: second.refusals.by_code() == {"measuring": 1})
        first.network.send(second.peer_id, encode_measure(TransferReport(bytes(32), 5)))
        assert (await first.network.meter.ping(second.peer_id, 0)).path == "relay"
        assert second.refusals.total() == 1
        assert second.messages == []
