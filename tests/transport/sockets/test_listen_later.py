"""Addresses that a machine has not yet when a server is started on them."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.errors import ConfigError
from protocol.uri import HostPort, ServerUri
from transport.sockets.server_socket import until_listenable

ROOT = Path(__file__).parents[3]
LATER = HostPort("198.51.100.7", 5600)


async def test_port_that_somebody_else_has_is_told_at_once(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConfigError, match="in use"):
            await until_listenable(HostPort("127.0.0.1", port), asyncio.Event())


async def test_waiting_for_an_address_ends_when_the_server_is_to_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop = asyncio.Event()
    waiting = asyncio.create_task(until_listenable(LATER, stop))
    async with asyncio.timeout(90):
        while not caplog.messages:  # noqa: ASYNC110 — a log line has no event.
            await asyncio.sleep(0.01)
        assert "198.51.100.7:5600" in caplog.messages[0]
        stop.set()
        assert await waiting is False


async def test_address_of_this_machine_is_there_at_once() -> None:
    for host in ("127.0.0.1", "localhost", "0.0.0.0"):
        assert await until_listenable(HostPort(host, 0), asyncio.Event())


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A relay in a network of its own, which has none but loopback addresses."""
    relay = (sys.executable, "-m", "daemon.cli", "relay", "--listen", str(LATER))
    command = (*relay, "--state-dir", str(tmp_path / "state"))
    with subprocess.Popen(
        ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.mark.natlab
def test_server_begins_when_its_address_comes(relay: subprocess.Popen[str]) -> None:
    assert relay.stderr is not None
    assert relay.stdout is not None
    assert "waiting for it" in relay.stderr.readline()
    subprocess.run(
        ["nsenter", "-t", str(relay.pid), "-n", "ip", "address", "add", LATER.host, "dev", "lo"],
        check=True,
        timeout=150,
    )
    assert ServerUri.parse(relay.stdout.readline().strip()).address == LATER
    relay.terminate()
    assert relay.wait(90) == 0
