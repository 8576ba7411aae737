"""What a peer finds out about its place in the network, with real sockets on loopback."""

import asyncio
import socket
from random import Random

import pytest

from daemon.control.trouble import of_whereabouts
from daemon.net.nat.stun.kept_mapping import KeptMapping
from daemon.net.nat.stun.tcp import TcpBinding
from daemon.net.nat.whereabouts import Whereabouts
from daemon.net.paths.probe_intervals import FIRST_S, LONGEST_ALONE_S, LONGEST_S, ProbeIntervals
from daemon.net.paths.punched.port import PunchPort
from protocol.errors import ConfigError
from protocol.peers.signal_messages import NextPort
from protocol.statements.nat_behavior import Dependence, PortAllocation, TransportBehavior
from protocol.uri import HostPort
from rendezvous.stun.service import serving_stun
from tests.eventually import eventually
from tests.free_ports import free_port
from transport.sockets.listening_socket import open_listening_socket

LOOPBACK = HostPort("127.0.0.1", 0)


class Rendezvous:
    """What is known of one through its client."""

    def __init__(self) -> None:
        self.stun_servers: tuple[HostPort, ...] = ()
        self.observed_address: str | None = None


class Unread:
    """Does not look at what it is told."""

    def whereabouts_changed(self) -> None: ...

    def moved(self, *, connections_lost: bool) -> None: ...


async def test_stun_servers_that_a_rendezvous_names_later_are_used() -> None:
    rendezvous = Rendezvous()
    changes: list[str] = []

    class Noting(Unread):
        def whereabouts_changed(self) -> None:
            changes.append(where.nat_in_words)

    where = Whereabouts([rendezvous], (), Noting())
    async with serving_stun(LOOPBACK, None) as ports, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(where.run(HostPort("0.0.0.0", 6000), map_port=False))
        await eventually(lambda: bool(changes))
        assert where.nat_in_words == "not known"
        rendezvous.stun_servers = tuple(HostPort("127.0.0.1", port) for port in ports)
        rendezvous.observed_address = "127.0.0.1"
        where.outposts_changed()
        await eventually(lambda: where.nat.tcp.reachable)
        assert where.stun_servers == rendezvous.stun_servers
        assert where.nat_in_words == changes[-1] == "no address translation"
        assert "127.0.0.1:6000" in where.addresses
        running.cancel()


async def test_name_that_leads_nowhere_is_logged_once_and_told_while_no_server_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rendezvous = Rendezvous()
    where = Whereabouts(
        [rendezvous],
        [HostPort("nohost.invalid", 3478)],
        Unread(),
        look_up_again_s=0.05,
    )
    assert of_whereabouts(where) == []
    async with serving_stun(LOOPBACK, None) as ports, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(where.run(HostPort("0.0.0.0", 6000), map_port=False))
        await eventually(
            lambda: [item.code for item in of_whereabouts(where)] == ["stun-unresolved"]
        )
        assert "nohost.invalid:3478: " in of_whereabouts(where)[0].text
        rendezvous.stun_servers = (HostPort("127.0.0.1", ports[0]),)
        where.outposts_changed()
        await eventually(lambda: of_whereabouts(where) == [])
        await asyncio.sleep(0.2)  # Some further times it is looked up, and nothing is new.
        running.cancel()
    assert caplog.text.count("nohost.invalid:3478 cannot be asked: ") == 1


async def test_server_that_does_not_answer_is_told() -> None:
    port = free_port()
    where = Whereabouts([], [HostPort("127.0.0.1", port)], Unread())
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(where.run(HostPort("0.0.0.0", 6000), map_port=False))
        await eventually(
            lambda: [item.code for item in of_whereabouts(where)] == ["stun-unreachable"]
        )
        running.cancel()


async def test_mapping_of_a_port_that_is_listened_on_is_found_and_lost_with_its_server() -> None:
    found: list[HostPort | None] = []
    with open_listening_socket(LOOPBACK) as listening:
        port = listening.getsockname()[1]
        kept = KeptMapping(port, found.append)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(kept.run())
            async with serving_stun(LOOPBACK, None) as ports:
                kept.keep([HostPort("127.0.0.1", ports[0])])
                await eventually(lambda: found == [HostPort("127.0.0.1", port)])
            kept.keep([HostPort("127.0.0.1", ports[0])])  # Look at it now.
            await eventually(lambda: found[-1] is None)
            running.cancel()


async def test_mapping_is_not_kept_any_more_when_no_server_is_named() -> None:
    with open_listening_socket(LOOPBACK) as listening:
        kept = KeptMapping(listening.getsockname()[1], lambda mapped: None)
        async with serving_stun(LOOPBACK, None) as ports, asyncio.TaskGroup() as tasks:
            running = tasks.create_task(kept.run())
            kept.keep([HostPort("127.0.0.1", ports[0])])
            await eventually(lambda: kept.mapped is not None)
            kept.keep([])
            await eventually(lambda: kept.mapped is None)
            running.cancel()


async def test_nobody_else_listens_on_the_shared_port_but_connections_leave_from_it() -> None:
    with open_listening_socket(LOOPBACK) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ConfigError, match="cannot listen"):
            open_listening_socket(HostPort("127.0.0.1", port))
        async with serving_stun(LOOPBACK, None) as ports:
            opened, binding = await TcpBinding.open(
                HostPort("127.0.0.1", ports[0]), HostPort("127.0.0.1", port)
            )
            opened.close()
            assert binding.mapped.port == port


def test_both_ip_versions_reach_a_socket_that_listens_on_all_addresses() -> None:
    with open_listening_socket(HostPort("::", 0)) as listening:
        port = listening.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), timeout=5):
                pass


BEHIND_RANDOM_NAT = TransportBehavior(
    reachable=True,
    translated=True,
    mapping=Dependence.ADDRESS_AND_PORT_DEPENDENT,
    port_allocation=PortAllocation.RANDOM,
)


async def test_punch_port_tells_its_endpoints() -> None:
    async with serving_stun(LOOPBACK, None) as ports:
        servers = [HostPort("127.0.0.1", port) for port in ports]
        async with PunchPort(servers, TransportBehavior(), ["192.168.1.7", "2001:db8::7"]) as port:
            end = port.end(signal_rtt_s=0.0204)
    assert end.public == f"127.0.0.1:{port.number}"
    assert end.hosts == (f"192.168.1.7:{port.number}", f"[2001:db8::7]:{port.number}")
    assert (end.next_port, end.port_step, end.signal_rtt_ms) == (NextPort.FIXED, 0, 20)


async def test_punch_port_without_any_answer_has_no_public_endpoint() -> None:
    silent = [HostPort("127.0.0.1", 1)]
    async with PunchPort(silent, BEHIND_RANDOM_NAT, []) as port:
        end = port.end(signal_rtt_s=None)
    assert end.public == ""
    assert end.next_port is NextPort.RANDOM


def test_probes_grow_apart_and_begin_anew() -> None:
    intervals = ProbeIntervals(Random(1))
    assert intervals.failed(is_alone=False) <= FIRST_S
    waits = [intervals.failed(is_alone=False) for _ in range(20)]
    assert LONGEST_S / 2 <= waits[-1] <= LONGEST_S
    assert intervals.failed(is_alone=True) <= LONGEST_ALONE_S
    intervals.reset()
    assert intervals.failed(is_alone=False) <= FIRST_S
