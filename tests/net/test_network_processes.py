"""Peers as processes: killed, stopped, and their memory while they move bulk."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from protocol.errors import ConfigError
from protocol.uri import HostPort
from tests.eventually import eventually
from tests.net.swarm_peers import Keys, Node, running


class PeerProcess:
    """A peer in a process of its own."""

    def __init__(self, number: int, process: Process) -> None:
        self.keys = Keys(number)
        self._process = process

    async def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the peer's process has ended"
        document: dict[str, Any] = json.loads(line)
        return document

    async def ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        return await self.answer()

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Its status, once ``condition`` holds of it."""
        async with asyncio.timeout(90):
            while not condition(status := await self.ask("status")):  # noqa: ASYNC110 - it is asked
                await asyncio.sleep(0.02)
        return status

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> None:
        await self._process.wait()


@asynccontextmanager
async def peer_process(number: int, port: int = 0) -> AsyncIterator[tuple[PeerProcess, int]]:
    """A running peer and the port that it listens on."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.net.peer_process",
        str(number),
        str(port),
        stdin=PIPE,
        stdout=PIPE,
    )
    try:
        peer = PeerProcess(number, process)
        yield peer, (await peer.answer())["port"]
    finally:
        if process.returncode is None:
            process.kill()
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def connected(node: Node, peer: PeerProcess, port: int) -> None:
    node.network.add_record(peer.keys.record(f"127.0.0.1:{port}"))
    await peer.ask(f"connect {node.keys.number} {node.network.listen_address.port}")
    await eventually(lambda: peer.keys.peer_id in node.network.live_peers())


@pytest.fixture
def numbers() -> tuple[int, int]:
    """The one with the lower id first: it dials."""
    low, high = sorted((1, 2), key=lambda number: Keys(number).peer_id)
    return low, high


@pytest.mark.parametrize("node_dials", [True, False])
async def test_killed_peer_is_noticed_and_is_back_when_it_is_started_again(
    numbers: tuple[int, int], node_dials: bool
) -> None:
    own, other = numbers if node_dials else numbers[::-1]
    async with running(Keys(own)) as node:
        async with peer_process(other) as (peer, port):
            await connected(node, peer, port)
            peer.signal(signal.SIGKILL)
            await peer.ended()
            await eventually(lambda: not node.network.live_peers())
        assert node.log[-1] == f"down {peer.keys.peer_id}: without any path for 2 s"
        async with peer_process(other, port) as (peer, port):
            await peer.ask(f"connect {own} {node.network.listen_address.port}")
            await eventually(lambda: peer.keys.peer_id in node.network.live_peers())
            assert node.network.send(peer.keys.peer_id, b"again")


async def test_stopped_process_is_not_live_and_is_again_when_it_goes_on(
    numbers: tuple[int, int],
) -> None:
    own, other = numbers
    async with running(Keys(own)) as node, peer_process(other) as (peer, port):
        await connected(node, peer, port)
        peer.signal(signal.SIGSTOP)
        await eventually(lambda: not node.network.live_peers())
        assert node.log[-1] == f"down {peer.keys.peer_id}: silent for 5 s"
        peer.signal(signal.SIGCONT)
        await eventually(lambda: peer.keys.peer_id in node.network.live_peers())
        status = await peer.until(lambda status: bool(status["live"]))
        assert status["live"] == [node.peer_id]


async def test_400_mib_to_three_peers_at_once_stay_within_100_mib_of_memory() -> None:
    async with (
        peer_process(1) as (source, source_port),
        peer_process(2) as (first, first_port),
        peer_process(3) as (second, second_port),
        peer_process(4) as (third, third_port),
    ):
        targets = ((first, first_port), (second, second_port), (third, third_port))
        for peer, port in targets:
            await source.ask(f"connect {peer.keys.number} {port}")
            await peer.ask(f"connect 1 {source_port}")
        await source.until(lambda status: len(status["live"]) == len(targets))
        for peer, _ in targets:
            await source.ask(f"bulk {peer.keys.number} 100")
            await peer.ask("bulk 1 33")
        for peer, _ in targets:
            status = await peer.until(
                lambda status: status["received"].get(source.keys.peer_id) == 100
            )
            assert status["peak_rss_mib"] < 100
        status = await source.until(
            lambda status: list(status["received"].values()) == [33] * len(targets)
        )
        assert status["peak_rss_mib"] < 100


async def test_listening_on_a_port_in_use_is_a_configuration_error() -> None:
    async with running(Keys(1)) as node:
        taken = node.network.listen_address
        with pytest.raises(ConfigError, match="cannot listen on"):
            async with running(Keys(2), listen=HostPort(taken.host, taken.port)):
                raise AssertionError("it listens on a port in use")
