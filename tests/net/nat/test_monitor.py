"""When the monitor discovers again, and when the watcher speaks, without any NAT."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest

from daemon.net.nat.behavior.monitor import NatMonitor
from daemon.net.nat.network_change import MachineNetwork, NetworkWatcher, messages_in, tells_of_loss
from daemon.net.nat.network_state import (
    NetworkState,
    default_gateway_ipv4,
    default_gateway_ipv6,
    read_network_state,
)
from protocol.statements.nat_behavior import FamilyBehavior, NatBehavior, TransportBehavior
from protocol.uri import HostPort
from rendezvous.stun.message import encode_success, parse_request
from tests.eventually import eventually
from tests.net.nat.conftest import LOOPBACK

FOUND = NatBehavior(ipv4=FamilyBehavior(udp=TransportBehavior(reachable=True)))


class ScriptedServer(asyncio.DatagramProtocol):
    """Tells whatever mapping it is told to tell, or nothing."""

    def __init__(self) -> None:
        self.mapped: HostPort | None = HostPort("203.0.113.7", 1000)
        self.moves_each_time = False
        self.requests = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.requests += 1
        request = parse_request(data)
        if self.mapped is not None and request is not None and self._transport is not None:
            answer = encode_success(request, mapped=self.mapped, origin=HostPort(*addr), other=None)
            self._transport.sendto(answer, addr)
            if self.moves_each_time:
                self.mapped = HostPort(self.mapped.host, self.mapped.port + 1)

    async def hear(self, more: int) -> None:
        """Wait for so many further requests."""
        wanted = self.requests + more
        await eventually(lambda: self.requests >= wanted)


class Discoveries:
    """Stands in for discoveries, and counts them."""

    def __init__(self) -> None:
        self.asked: list[tuple[HostPort, ...]] = []
        self.reported: asyncio.Queue[NatBehavior] = asyncio.Queue()

    async def discover(self, servers: Sequence[HostPort]) -> NatBehavior:
        self.asked.append(tuple(servers))
        return FOUND

    def behavior_found(self, behavior: NatBehavior) -> None:
        self.reported.put_nowait(behavior)

    def network_changed(self, state: NetworkState) -> None:
        """Not looked at."""

    async def next(self) -> NatBehavior:
        async with asyncio.timeout(90):
            return await self.reported.get()


@asynccontextmanager
async def scripted_server() -> AsyncIterator[tuple[ScriptedServer, HostPort]]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        ScriptedServer, local_addr=(LOOPBACK, 0)
    )
    try:
        yield server, HostPort(*transport.get_extra_info("sockname"))
    finally:
        transport.close()


def monitor_of(address: HostPort, discoveries: Discoveries) -> NatMonitor:
    """One that asks the server at ``address`` again and again."""
    return NatMonitor([address], discoveries, check_interval_s=0.01, discover=discoveries.discover)


@asynccontextmanager
async def running(monitor: NatMonitor) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(monitor.run())
        yield
        task.cancel()


async def test_changed_mapping_is_discovered_again_and_an_unchanged_one_is_not() -> None:
    discoveries = Discoveries()
    async with scripted_server() as (server, address):
        monitor = monitor_of(address, discoveries)
        async with running(monitor):
            assert await discoveries.next() == FOUND
            assert monitor.behavior == FOUND
            await server.hear(10)
            assert len(discoveries.asked) == 1
            server.mapped = HostPort("203.0.113.7", 1001)
            await discoveries.next()
            await server.hear(10)
            assert len(discoveries.asked) == 2


async def test_mapping_that_never_lasts_is_no_news_but_another_address_is() -> None:
    discoveries = Discoveries()
    async with scripted_server() as (server, address):
        server.moves_each_time = True
        monitor = monitor_of(address, discoveries)
        async with running(monitor):
            await discoveries.next()
            await server.hear(10)
            assert len(discoveries.asked) == 1
            server.mapped = HostPort("203.0.113.8", 1)
            await discoveries.next()


async def test_answer_after_a_silence_is_discovered_again() -> None:
    discoveries = Discoveries()
    async with scripted_server() as (server, address):
        monitor = monitor_of(address, discoveries)
        async with running(monitor):
            await discoveries.next()
            await server.hear(2)
            before, server.mapped = server.mapped, None
            # Three tries make a request; the fifth belongs to one after a whole one failed.
            await server.hear(5)
            assert len(discoveries.asked) == 1
            server.mapped = before
            await discoveries.next()
            assert len(discoveries.asked) == 2


async def test_discovery_can_be_asked_for_and_with_other_servers() -> None:
    discoveries = Discoveries()
    monitor = NatMonitor([], discoveries, discover=discoveries.discover)
    other = HostPort("127.0.0.9", 9)
    async with running(monitor):
        await discoveries.next()
        monitor.discover_again()
        await discoveries.next()
        monitor.discover_again([other])
        await discoveries.next()
    assert discoveries.asked == [(), (), (other,)]


async def test_discovery_is_repeated_now_and_then() -> None:
    discoveries = Discoveries()
    monitor = NatMonitor(
        [],
        discoveries,
        repeat_interval_s=0.01,
        discover=discoveries.discover,
    )
    async with running(monitor):
        for _ in range(3):
            await discoveries.next()
    assert len(discoveries.asked) >= 3


class Scripted(MachineNetwork):
    """In one state after the other, then in the last for ever."""

    def __init__(self, states: list[NetworkState], netlink: socket.socket | None = None) -> None:
        self._left = states
        self._netlink = netlink

    def read_state(self) -> NetworkState:
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]

    def open_netlink(self) -> socket.socket:
        if self._netlink is None:
            raise OSError("there is none")
        return self._netlink


async def test_without_netlink_the_watcher_polls() -> None:
    here, there = NetworkState(frozenset({"10.0.0.1"})), NetworkState(frozenset({"10.9.9.9"}))
    seen: asyncio.Queue[NetworkState] = asyncio.Queue()
    with NetworkWatcher(
        seen.put_nowait,
        poll_s=0.01,
        network=Scripted([here, here, here, there]),
    ) as watcher:
        assert watcher.state == here
        async with asyncio.timeout(90):
            assert await seen.get() == there
        assert watcher.state == there
    assert seen.empty()


async def test_overflowing_netlink_counts_as_a_change() -> None:
    seen: asyncio.Queue[NetworkState] = asyncio.Queue()
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    state = NetworkState(frozenset({"10.0.0.1"}))
    with (
        kernels,
        NetworkWatcher(seen.put_nowait, settle_s=0, network=Scripted([state], ours)),
    ):
        # A new address that is there already changes nothing; one that went does.
        kernels.send(netlink_message(20, bytes((2, 24, 0, 0, 1, 0, 0, 0))))
        kernels.send(netlink_message(21, bytes((2, 24, 0, 0, 1, 0, 0, 0))))
        async with asyncio.timeout(90):
            assert await seen.get() == state
    assert seen.empty()


def netlink_message(kind: int, payload: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, 0, 0, 0) + payload


def test_netlink_packet_is_taken_apart() -> None:
    packet = netlink_message(20, b"abcde") + bytes(3) + netlink_message(24, b"xy")
    assert list(messages_in(packet)) == [(20, b"abcde"), (24, b"xy")]
    assert list(messages_in(bytes(16))) == []
    assert list(messages_in(b"short")) == []


@pytest.mark.parametrize(
    ("kind", "payload", "lost"),
    [
        (21, bytes((2, 24, 0, 0)), True),  # an address for everywhere
        (21, bytes((10, 64, 0, 253)), False),  # a link-local one
        (25, bytes((2, 0, 0, 0, 254)), True),  # the default route of the main table
        (25, bytes((2, 24, 0, 0, 254)), False),  # a route to one network
        (25, bytes((2, 0, 0, 0, 99)), False),  # another table
        (20, bytes((2, 24, 0, 0)), False),
        (17, bytes(16), False),
    ],
)
def test_losses_are_told_from_other_messages(kind: int, payload: bytes, lost: bool) -> None:
    assert tells_of_loss(kind, payload) is lost


ROUTES_IPV4 = """\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth1\t00000000\t01020AC0\t0002\t0\t0\t0\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
NO_ROUTE_IPV6 = (
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00 "
    "00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n"
)
ROUTES_IPV6 = (
    "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 "
    "00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n"
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00 "
    "fd000000000000000000000000000001 00000400 00000002 00000000 00000003     eth0\n"
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00 "
    "fe800000000000000000000000000001 00000100 00000002 00000000 00000003     wlan0\n"
) + NO_ROUTE_IPV6


def test_gateway_is_that_of_the_nearest_default_route() -> None:
    assert default_gateway_ipv4(ROUTES_IPV4) == "192.0.2.1"
    assert default_gateway_ipv6(ROUTES_IPV6) == "fe80::1%wlan0"


@pytest.mark.parametrize("table", ["", ROUTES_IPV4.splitlines()[0]])
def test_no_default_route_is_no_gateway(table: str) -> None:
    assert default_gateway_ipv4(table) is None


def test_no_ipv6_default_route_is_no_gateway() -> None:
    assert default_gateway_ipv6(NO_ROUTE_IPV6) is None
    assert default_gateway_ipv6("") is None


def test_own_state_has_no_loopback_in_it() -> None:
    assert not any(address.startswith("127.") for address in read_network_state().addresses)
