"""Ping and speed over the control API's real unix socket."""

import asyncio
from pathlib import Path

import pytest

from daemon.control.client import ControlClient, ControlError
from daemon.host.unix_socket import connect_control
from protocol.errors import TransportError
from tests.cli.fake_peer import BOB, FakePeer


async def test_ping_and_speed_come_as_their_documents(state_dir: Path) -> None:
    client = ControlClient(state_dir)
    ping = await asyncio.to_thread(client.ping, BOB, 1000)
    assert (ping.peer_id, ping.size_bytes, ping.path) == (BOB, 1000, "relay")
    speed = await asyncio.to_thread(client.speed, BOB, 10_000_000, "direct")
    assert (speed.bytes, speed.path, speed.mb_per_s) == (10_000_000, "direct", 50.0)


async def test_what_the_network_does_not_give_is_told_apart_from_a_failed_daemon(
    state_dir: Path,
) -> None:
    client = ControlClient(state_dir)
    with pytest.raises(TransportError, match="no answer"):
        await asyncio.to_thread(client.ping, "c" * 52, 0)
    with pytest.raises(TransportError, match="no ice path"):
        await asyncio.to_thread(client.speed, BOB, 1, "ice")


@pytest.mark.parametrize("path", ["failed", "DIRECT", "../stop"])
async def test_what_is_no_kind_of_path_is_refused(state_dir: Path, path: str) -> None:
    with pytest.raises(ControlError, match="is no kind of path"):
        await asyncio.to_thread(ControlClient(state_dir).speed, BOB, 1, path)


async def test_sizes_beyond_the_bounds_are_refused(state_dir: Path) -> None:
    client = ControlClient(state_dir)
    for size in (-1, 60_001, 10**30):
        with pytest.raises(ControlError, match="a size from 0 to 60000"):
            await asyncio.to_thread(client.ping, BOB, size)


async def test_measurement_ends_when_nobody_waits_for_it_any_more(
    state_dir: Path, peer: FakePeer
) -> None:
    request = f"POST /v1/speed?peer={BOB}&size=1&path=relay HTTP/1.1\r\nHost: p2pd\r\n\r\n"
    with connect_control(state_dir / "control.sock", 10.0) as connection:
        await asyncio.to_thread(connection.sendall, request.encode())
        async with asyncio.timeout(90):
            await peer.measuring.wait()
        assert not peer.measured.is_set()
    async with asyncio.timeout(90):
        await peer.measured.wait()
    assert not peer.stopped.is_set()
