"""Coturn, an independent implementation: its clients ask our server, our client asks its server."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.net.nat.behavior.discover import discover_behavior
from daemon.net.nat.stun.tcp import TcpBinding
from protocol.statements.nat_behavior import Dependence
from protocol.uri import HostPort
from rendezvous.stun.server import StunServer
from tests.free_ports import free_port
from tests.net.nat.conftest import LOOPBACK, SECOND_LOOPBACK
from tests.net.nat.programs import requires_program


@dataclass(frozen=True)
class Coturn:
    host: str
    port: int
    other_port: int


@pytest.fixture
async def coturn(tmp_path: Path) -> AsyncIterator[Coturn]:
    """A turnserver with STUN on two addresses and two ports."""
    port, other_port = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        *("turnserver", "-n", "--stun-only", "--no-cli", "--no-tls", "--no-dtls"),
        *(f"--listening-ip={LOOPBACK}", f"--listening-ip={SECOND_LOOPBACK}", "-m", "1"),
        *(f"--listening-port={port}", f"--alt-listening-port={other_port}"),
        *(f"--pidfile={tmp_path}/pid", "--log-file=stdout", f"--userdb={tmp_path}/none"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(90):
            while not await _listens(HostPort(SECOND_LOOPBACK, other_port)):
                assert process.returncode is None, "turnserver ended"
        yield Coturn(LOOPBACK, port, other_port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _listens(server: HostPort) -> bool:
    try:
        opened, _ = await TcpBinding.open(server)
    except Exception:
        return False
    opened.close()
    return True


async def run_client(*argv: str) -> str:
    """What the program prints, one fact a line."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(90):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode()


@requires_program("turnserver", "coturn")
async def test_our_discovery_understands_coturns_server(coturn: Coturn) -> None:
    found = (await discover_behavior([HostPort(coturn.host, coturn.port)])).ipv4
    assert found.udp.reachable
    assert found.udp.translated is False
    assert found.udp.filtering == Dependence.ENDPOINT_INDEPENDENT
    assert found.tcp.reachable
    assert found.tcp.public_host == LOOPBACK


@requires_program("turnutils_stunclient", "coturn")
async def test_coturns_client_understands_our_server(two_addresses: StunServer) -> None:
    first, *_, other = two_addresses.addresses
    out = await run_client("turnutils_stunclient", "-p", str(first.port), first.host)
    assert f"Response origin: : {first}" in out
    assert f"Other addr: : {other}" in out
    # It goes on to ask for an answer from elsewhere to another port of its own, and for a long one.
    assert re.findall(r"RFC 5780 response (\d)", out) == ["1", "2", "3"]
    assert len(set(re.findall(r"UDP reflexive addr: 127\.0\.0\.1:(\d+)", out))) == 2
    assert two_addresses.counts.answered == 3


@requires_program("turnutils_natdiscovery", "coturn")
async def test_coturns_discovery_draws_the_right_conclusions_from_our_server(
    two_addresses: StunServer,
) -> None:
    first = two_addresses.addresses[0]
    argv = ("-m", "-f", "-P", "-p", str(first.port), "-L", LOOPBACK, first.host)
    out = await run_client("turnutils_natdiscovery", *argv)
    assert "No NAT! (Endpoint Independent Mapping)" in out
    assert "NAT with Endpoint Independent Filtering!" in out
    assert "ALG" not in out.replace("No ALG: Mapped == XOR-Mapped", "")


@requires_program("turnutils_natdiscovery", "coturn")
async def test_coturns_discovery_is_told_nothing_false_by_a_server_with_one_address(
    one_address: StunServer,
) -> None:
    first = one_address.addresses[0]
    argv = ("-m", "-f", "-p", str(first.port), "-L", LOOPBACK, first.host)
    out = await run_client("turnutils_natdiscovery", *argv)
    assert f"UDP reflexive addr: {LOOPBACK}" in out
    assert "Other addr" not in out
    assert "NAT with" not in out
