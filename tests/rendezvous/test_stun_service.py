"""STUN beside the rendezvous: where it is, and how peers learn that."""

import asyncio
from pathlib import Path

import pytest

from daemon.net.nat.stun.tcp import TcpBinding
from protocol.errors import ConfigError
from protocol.uri import HostPort
from rendezvous.stun.listen import bind_port
from rendezvous.stun.service import serving_stun
from tests.free_ports import free_port
from tests.rendezvous.live import joined, serving


async def test_peer_learns_of_the_stun_server_with_its_lease(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri, joined(uri) as peer:
        assert len(peer.client.stun_servers) == 2
        for server in peer.client.stun_servers:
            opened, binding = await TcpBinding.open(server)
            opened.close()
            assert binding.mapped == binding.local


async def test_ports_after_the_rendezvous_are_taken_when_they_are_free() -> None:
    port = free_port(neighbours=2)
    async with serving_stun(HostPort("127.0.0.1", port), None) as ports:
        assert ports == (port + 1, port + 2)


async def test_other_ports_are_taken_when_the_neighbours_are_not_free() -> None:
    port = free_port(neighbours=2)
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", port + 1)
    async with taken, serving_stun(HostPort("127.0.0.1", port), None) as ports:
        assert port + 1 not in ports
        assert all(ports)


async def test_other_ports_are_taken_when_a_neighbour_is_not_free_over_ipv6_alone() -> None:
    port = free_port(neighbours=2)
    taken = await asyncio.start_server(lambda *_: None, "::1", port + 1)
    async with taken, serving_stun(HostPort("::", port), None) as ports:
        assert port + 1 not in ports
        begun_and_given_up = bind_port(("127.0.0.1",), port + 1)
        for each in begun_and_given_up.udp + begun_and_given_up.tcp:
            each.close()


async def test_port_that_was_asked_for_and_is_taken_is_an_error() -> None:
    port = free_port(neighbours=2)
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    async with taken:
        with pytest.raises(ConfigError, match="STUN cannot listen"):
            async with serving_stun(HostPort("127.0.0.1", 5555), port):
                pass


async def test_address_that_is_not_this_hosts_is_an_error_and_other_ports_are_not_tried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ConfigError, match="name an address of this machine"):
        async with serving_stun(HostPort("127.0.0.1", free_port(neighbours=2)), None, "192.0.2.1"):
            pass
    assert caplog.text == ""


async def test_both_address_families_are_served_beside_a_dual_stack_rendezvous() -> None:
    async with serving_stun(HostPort("::", 0), None) as ports:
        for host in ("127.0.0.1", "::1"):
            opened, binding = await TcpBinding.open(HostPort(host, ports[0]))
            opened.close()
            assert binding.mapped.host == host


async def test_further_port_is_served_where_it_is_free() -> None:
    port = free_port(neighbours=2)
    async with serving_stun(HostPort("127.0.0.1", 0), None, also_port=port) as ports:
        assert len(ports) == 3
        assert ports[2] == port
        opened, _ = await TcpBinding.open(HostPort("127.0.0.1", port))
        opened.close()


async def test_further_port_that_is_taken_is_done_without() -> None:
    port = free_port(neighbours=2)
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    async with taken, serving_stun(HostPort("127.0.0.1", 0), None, also_port=port) as ports:
        assert len(ports) == 2
