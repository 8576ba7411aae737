"""The STUN client over real sockets, and its retransmissions without."""

import asyncio
import socket
import struct
from collections.abc import Iterator

import pytest

from daemon.net.nat.stun.binding import (
    BindingRefusedError,
    is_credible_other,
    local_endpoint,
    source_host,
)
from daemon.net.nat.stun.resolve import ResolvedServers, resolve_servers
from daemon.net.nat.stun.tcp import TcpBinding
from daemon.net.nat.stun.transaction import BindingTransaction
from daemon.net.nat.stun.udp import UdpBindings
from protocol.errors import TransportError
from protocol.uri import HostPort
from rendezvous.stun.listen import bind_port
from rendezvous.stun.message import (
    BindingSuccess,
    Change,
    encode_request,
    encode_success,
    parse_request,
)
from rendezvous.stun.responder import DropReason
from rendezvous.stun.server import StunLimits, StunServer
from tests.eventually import eventually
from tests.net.nat.conftest import LOOPBACK, SECOND_LOOPBACK

ID = bytes(range(12))
SERVER = HostPort("198.51.100.1", 3478)


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("0.0.0.0", 0))
        yield client


@pytest.fixture
def silent_server() -> Iterator[HostPort]:
    """A UDP and TCP endpoint that takes everything and says nothing."""
    port = bind_port((LOOPBACK,), 0)
    with port.udp[0], port.tcp[0] as tcp:
        tcp.listen()
        yield HostPort(LOOPBACK, port.number)


def response_to(request: bytes, transaction_id: bytes = ID) -> bytes:
    parsed = parse_request(request)
    assert parsed is not None
    assert parsed.transaction_id == transaction_id
    return encode_success(parsed, mapped=HostPort("203.0.113.7", 4), origin=SERVER, other=None)


def test_request_is_sent_three_times_in_a_second_and_given_up() -> None:
    transaction = BindingTransaction(ID, SERVER, now=100.0)
    sent, now = [], 100.0
    while (timer := transaction.get_timer(now)) is not None:
        now = max(now, timer)
        if transaction.data_to_send(now) is not None:
            sent.append(round(now - 100.0, 3))
    assert sent == [0.0, 0.2, 0.6]
    assert now == 101.0
    assert transaction.data_to_send(now) is None


def test_late_wakeups_send_no_volley() -> None:
    transaction = BindingTransaction(ID, SERVER, now=0.0)
    assert transaction.data_to_send(0.0)
    assert transaction.data_to_send(0.9)
    assert transaction.data_to_send(0.9) is None


def test_answer_counts_from_the_server_alone_unless_it_was_to_come_from_elsewhere() -> None:
    elsewhere = HostPort("192.0.2.1", 3479)
    plain = BindingTransaction(ID, SERVER, now=0.0)
    answer = response_to(plain.data_to_send(0.0) or b"")
    assert plain.receive_data(answer, elsewhere) is None
    assert isinstance(plain.receive_data(answer, SERVER), BindingSuccess)
    changed = BindingTransaction(ID, SERVER, Change.IP, now=0.0)
    assert isinstance(changed.receive_data(answer, elsewhere), BindingSuccess)


def test_answer_to_another_request_and_rubbish_are_none() -> None:
    transaction = BindingTransaction(bytes(12), SERVER, now=0.0)
    assert transaction.receive_data(response_to(encode_request(ID)), SERVER) is None
    assert transaction.receive_data(b"rubbish", SERVER) is None


async def test_binding_is_that_of_the_very_socket(
    two_addresses: StunServer, udp: socket.socket
) -> None:
    with UdpBindings(udp) as bindings:
        for server in two_addresses.addresses:
            binding = await bindings.bind(server)
            # Loopback translates nothing.
            assert binding.mapped == binding.local == HostPort(LOOPBACK, udp.getsockname()[1])
            assert binding.server == server
            assert binding.other is not None
    udp.sendto(b"still open", (LOOPBACK, two_addresses.addresses[0].port))


async def test_many_bindings_on_one_socket_at_once(
    two_addresses: StunServer, udp: socket.socket
) -> None:
    with UdpBindings(udp) as bindings:
        results = await asyncio.gather(
            *(bindings.bind(server) for server in two_addresses.addresses * 5)
        )
    assert [result.server for result in results] == [*two_addresses.addresses * 5]


async def test_first_answer_wins_over_dead_servers(
    one_address: StunServer, silent_server: HostPort, udp: socket.socket
) -> None:
    living = one_address.addresses[0]
    with UdpBindings(udp) as bindings:
        # Nothing but the answer ends this: a dead server would take an hour.
        async with asyncio.timeout(90):
            binding = await bindings.bind_any(
                [silent_server, living, HostPort(LOOPBACK, 9)], timeout_s=3600
            )
    assert binding.server == living


async def test_dead_servers_end_in_a_transport_error(
    silent_server: HostPort, udp: socket.socket
) -> None:
    with UdpBindings(udp) as bindings:
        with pytest.raises(TransportError, match=r"no answer.*in 0\.05 s"):
            await bindings.bind(silent_server, timeout_s=0.05)
        with pytest.raises(TransportError, match="any of 2 STUN servers"):
            await bindings.bind_any([silent_server, silent_server], timeout_s=0.05)
        with pytest.raises(TransportError, match="any of 0 STUN servers"):
            await bindings.bind_any([])


async def test_unroutable_server_fails_at_once(udp: socket.socket) -> None:
    with UdpBindings(udp) as bindings, pytest.raises(TransportError, match="cannot send"):
        await bindings.bind(HostPort("255.255.255.255", 1), timeout_s=3600)


async def test_refusal_is_no_silence(one_address: StunServer, udp: socket.socket) -> None:
    with UdpBindings(udp) as bindings, pytest.raises(BindingRefusedError, match="420"):
        await bindings.bind(one_address.addresses[0], Change.IP)


async def test_other_packets_are_handed_on(one_address: StunServer, udp: socket.socket) -> None:
    other: list[tuple[bytes, HostPort]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((LOOPBACK, 0))
        with UdpBindings(udp, on_other=lambda *packet: other.append(packet)) as bindings:
            peer.sendto(b"hello", (LOOPBACK, udp.getsockname()[1]))
            await bindings.bind(one_address.addresses[0])
            await eventually(lambda: bool(other))
        assert other == [(b"hello", HostPort(*peer.getsockname()))]


async def test_tcp_binding_keeps_its_port_shared_and_its_connection_open(
    one_address: StunServer,
) -> None:
    first, second = one_address.addresses
    opened, binding = await TcpBinding.open(first)
    assert binding.mapped == binding.local
    again, other_binding = await TcpBinding.open(second, binding.local)
    assert other_binding.mapped == binding.mapped
    # As libzmq does it when it punches: another socket on the same port, SO_REUSEADDR alone.
    with socket.socket() as punching:
        punching.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        punching.bind((binding.local.host, binding.local.port))
    assert one_address.counts.connections == 2
    assert (await opened.ask()).mapped == binding.mapped
    opened.close()
    again.close()
    opened.close()
    await eventually(lambda: one_address.counts.connections == 0)


async def test_same_port_reaches_the_same_server_again_at_once(one_address: StunServer) -> None:
    opened, binding = await TcpBinding.open(one_address.addresses[0])
    opened.close()
    again, second = await TcpBinding.open(one_address.addresses[0], binding.local)
    assert second.local == binding.local
    again.close()


async def test_tcp_server_that_is_gone_or_silent_ends_in_a_transport_error(
    silent_server: HostPort,
) -> None:
    with pytest.raises(TransportError, match=r"in 0\.05 s"):
        await TcpBinding.open(silent_server, timeout_s=0.05)
    with pytest.raises(TransportError, match="over TCP"):
        await TcpBinding.open(HostPort(LOOPBACK, 9))
    with pytest.raises(TransportError, match="any of 2"):
        await TcpBinding.open_any([HostPort(LOOPBACK, 9), silent_server], timeout_s=0.05)
    async with StunServer(HostPort(LOOPBACK, 0), 0) as server:
        opened, _ = await TcpBinding.open_any([HostPort(LOOPBACK, 9), server.addresses[0]])
    with pytest.raises(TransportError, match=r"closed|reset"):
        await opened.ask()
    opened.close()


async def test_kept_connection_outlives_the_servers_patience_and_tells_when_it_is_gone() -> None:
    limits = StunLimits(idle_s=0.3)
    async with StunServer(HostPort(LOOPBACK, 0), 0, limits=limits) as server:
        opened, _ = await TcpBinding.open(server.addresses[0])
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(opened.keep_open(interval_s=0.02))
            await eventually(lambda: server.counts.answered > 30)
            keeping.cancel()
        assert DropReason.IDLE not in server.counts.dropped
        await eventually(lambda: server.counts.dropped == {DropReason.IDLE: 1})
        with pytest.raises(TransportError):
            await opened.keep_open(interval_s=0)
    opened.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        struct.pack("!HHI12s", 0x0101, 0xFFFC, 0x2112A442, ID),
        response_to(encode_request(ID)),
        b"",
    ],
)
async def test_tcp_server_that_answers_nonsense_ends_in_a_transport_error(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(20)
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, LOOPBACK, 0) as server:
        with pytest.raises(TransportError, match="STUN server"):
            await TcpBinding.open(HostPort(*server.sockets[0].getsockname()))


@pytest.mark.parametrize(
    ("server", "other", "credible"),
    [
        ("8.8.8.8", "9.9.9.9", True),
        ("8.8.8.8", "8.8.8.8", False),
        ("8.8.8.8", "192.168.1.1", False),
        ("8.8.8.8", "127.0.0.1", False),
        ("8.8.8.8", "169.254.169.254", False),
        ("8.8.8.8", "224.0.0.1", False),
        ("8.8.8.8", "2001:4860::1", False),
        ("2001:4860::1", "2001:4860::2", True),
        ("2001:4860::1", "fd00::1", False),
        ("192.168.1.1", "192.168.1.2", True),
        ("192.168.1.1", "0.0.0.0", False),
    ],
)
def test_server_on_the_internet_cannot_send_us_into_our_own_network(
    server: str, other: str, credible: bool
) -> None:
    assert is_credible_other(HostPort(server, 3478), HostPort(other, 3479)) is credible


def test_no_other_address_and_none_of_port_zero_is_asked() -> None:
    assert not is_credible_other(HostPort("8.8.8.8", 3478), None)
    assert not is_credible_other(HostPort("8.8.8.8", 3478), HostPort("9.9.9.9", 0))


def test_local_endpoint_is_the_one_that_packets_leave_from(udp: socket.socket) -> None:
    port = udp.getsockname()[1]
    assert local_endpoint(udp, HostPort(SECOND_LOOPBACK, 1)) == HostPort(LOOPBACK, port)
    assert source_host(HostPort("::1", 1)) == "::1"


async def test_servers_are_resolved_each_once_and_unknown_names_are_told_with_the_reason() -> None:
    unknown = HostPort("no-such-host.invalid", 3478), HostPort("a..b", 3478)
    named = [
        HostPort("localhost", 3478),
        HostPort(LOOPBACK, 3478),
        *unknown,
        HostPort("::1", 3479),
    ]
    resolved = await resolve_servers(named)
    assert resolved.endpoints.count(HostPort(LOOPBACK, 3478)) == 1
    assert resolved.endpoints[-1] == HostPort("::1", 3479)
    assert {server.host for server in resolved.endpoints} <= {LOOPBACK, "::1"}
    assert tuple(resolved.failures) == unknown
    assert all(resolved.failures.values())


async def test_dns_that_takes_too_long_is_told_in_words() -> None:
    server = HostPort("no-such-host.invalid", 3478)
    resolved = await resolve_servers([server], timeout_s=0)
    assert resolved.failures_in_words == f"{server}: no answer from DNS within 0 s"


def test_endpoints_stay_known_where_dns_fails_later() -> None:
    server, other = HostPort("stun.example", 3478), HostPort("other.example", 3478)
    endpoint = HostPort("203.0.113.1", 3478)
    known = ResolvedServers({server: (endpoint,)}, {other: "unknown"})
    later = known.updated(ResolvedServers({}, {server: "no answer from DNS"}), [server])
    assert later == ResolvedServers({server: (endpoint,)}, {})
