"""Shared by the STUN tests: servers on loopback, and the programs of others."""

from collections.abc import AsyncIterator

import pytest

from protocol.uri import HostPort
from rendezvous.stun.server import StunServer

LOOPBACK = "127.0.0.1"
SECOND_LOOPBACK = "127.0.0.2"


@pytest.fixture
async def one_address() -> AsyncIterator[StunServer]:
    """A STUN server on two ports of one address."""
    async with StunServer(HostPort(LOOPBACK, 0), 0) as server:
        yield server


@pytest.fixture
async def two_addresses() -> AsyncIterator[StunServer]:
    """A STUN server on two ports of two addresses."""
    async with StunServer(HostPort(LOOPBACK, 0), 0, SECOND_LOOPBACK) as server:
        yield server
