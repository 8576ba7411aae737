"""The STUN server over real sockets on loopback, as any client sees it."""

import asyncio
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product

import pytest

from protocol.errors import ConfigError
from protocol.uri import HostPort
from rendezvous.stun.message import (
    BindingError,
    BindingResponse,
    BindingSuccess,
    Change,
    encode_request,
    parse_response,
)
from rendezvous.stun.responder import DropReason
from rendezvous.stun.server import StunLimits, StunServer
from tests.eventually import eventually
from tests.net.nat.conftest import LOOPBACK, SECOND_LOOPBACK
from tests.stopped_clock import StoppedClock

BOTH = Change.IP | Change.PORT


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((LOOPBACK, 0))
        client.setblocking(False)
        yield client


async def ask_udp(
    client: socket.socket, server: HostPort, request: bytes
) -> tuple[BindingResponse, HostPort]:
    """The answer and where it came from."""
    client.sendto(request, (server.host, server.port))
    async with asyncio.timeout(90):
        data, sender = await asyncio.get_running_loop().sock_recvfrom(client, 2000)
    return parse_response(data), HostPort(*sender[:2])


async def ask_tcp(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> BindingResponse:
    writer.write(request)
    async with asyncio.timeout(90):
        header = await reader.readexactly(20)
        return parse_response(
            header + await reader.readexactly(struct.unpack("!H", header[2:4])[0])
        )


async def closed_by_server(reader: asyncio.StreamReader) -> bool:
    """Whether the connection ends without another byte."""
    async with asyncio.timeout(90):
        try:
            return await reader.read(1) == b""
        except ConnectionResetError:
            return True


async def test_udp_tells_the_senders_endpoint(one_address: StunServer, udp: socket.socket) -> None:
    own = HostPort(*udp.getsockname())
    for server in one_address.addresses:
        transaction_id = os.urandom(12)
        response, sender = await ask_udp(udp, server, encode_request(transaction_id))
        assert response == BindingSuccess(transaction_id, own, server, None)
        assert sender == server
    assert one_address.counts.answered == 2


async def test_change_request_is_answered_from_the_endpoint_asked_for(
    two_addresses: StunServer, udp: socket.socket
) -> None:
    first, first_other_port, second, second_other_port = two_addresses.addresses
    expected = {
        Change.NONE: first,
        Change.PORT: first_other_port,
        Change.IP: second,
        BOTH: second_other_port,
    }
    for change, origin in expected.items():
        response, sender = await ask_udp(udp, first, encode_request(os.urandom(12), change))
        assert isinstance(response, BindingSuccess)
        assert (sender, response.origin, response.other) == (origin, origin, second_other_port)


async def test_all_four_endpoints_answer_over_tcp_and_udp(
    two_addresses: StunServer, udp: socket.socket
) -> None:
    assert len(two_addresses.addresses) == 4
    for server in two_addresses.addresses:
        await ask_udp(udp, server, encode_request(os.urandom(12)))
        reader, writer = await asyncio.open_connection(server.host, server.port)
        own = HostPort(*writer.get_extra_info("sockname"))
        transaction_id = os.urandom(12)
        response = await ask_tcp(reader, writer, encode_request(transaction_id))
        assert isinstance(response, BindingSuccess)
        assert (response.mapped, response.origin) == (own, server)
        writer.close()
        await writer.wait_closed()
    assert two_addresses.counts.answered == 8


async def test_ipv6_is_served_too() -> None:
    async with StunServer(HostPort("::1", 0), 0) as server:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.bind(("::1", 0))
            client.setblocking(False)
            for address, change in product(server.addresses, (Change.NONE, Change.PORT)):
                response, sender = await ask_udp(
                    client, address, encode_request(os.urandom(12), change)
                )
                assert isinstance(response, BindingSuccess)
                assert response.mapped == HostPort(*client.getsockname()[:2])
                assert (sender == address) == (change is Change.NONE)
                assert sender in server.addresses
        reader, writer = await asyncio.open_connection("::1", server.addresses[1].port)
        response = await ask_tcp(reader, writer, encode_request(os.urandom(12)))
        assert isinstance(response, BindingSuccess)
        assert response.mapped == HostPort(*writer.get_extra_info("sockname")[:2])
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("asked", [LOOPBACK, SECOND_LOOPBACK, "127.0.0.77"])
async def test_server_on_the_wildcard_answers_from_the_address_that_was_asked(
    asked: str, udp: socket.socket
) -> None:
    async with StunServer(HostPort("0.0.0.0", 0), 0) as server:
        port, other_port = (address.port for address in server.addresses)
        for change, origin in ((Change.NONE, port), (Change.PORT, other_port)):
            response, sender = await ask_udp(
                udp, HostPort(asked, port), encode_request(os.urandom(12), change)
            )
            assert isinstance(response, BindingSuccess)
            assert sender == response.origin == HostPort(asked, origin)


async def test_rubbish_is_left_unanswered_and_counted(
    one_address: StunServer, udp: socket.socket
) -> None:
    server = one_address.addresses[0]
    for rubbish in (b"", b"x", os.urandom(500), os.urandom(9000)):
        udp.sendto(rubbish, (server.host, server.port))
    # Its answer is the first that comes: to what was sent before, none did.
    transaction_id = os.urandom(12)
    response, _ = await ask_udp(udp, server, encode_request(transaction_id))
    assert response.transaction_id == transaction_id
    assert one_address.counts.dropped == {DropReason.MALFORMED: 4}


async def test_two_servers_never_talk_to_each_other(udp: socket.socket) -> None:
    async with (
        StunServer(HostPort(LOOPBACK, 0), 0) as one,
        StunServer(HostPort(LOOPBACK, 0), 0) as two,
    ):
        response, _ = await ask_udp(udp, one.addresses[0], encode_request(os.urandom(12)))
        assert response
        udp.close()
        # An answer of the one, as if it came from the other.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spoofer:
            answer = bytes.fromhex("0101000c2112a442") + os.urandom(12)
            answer += bytes.fromhex("002000080001a147e112a643")
            spoofer.sendto(answer, (LOOPBACK, two.addresses[0].port))
            await eventually(lambda: two.counts.dropped == {DropReason.NOT_A_REQUEST: 1})
        assert (one.counts.answered, two.counts.answered) == (1, 0)


async def test_flood_from_one_source_is_cut_to_its_rate(udp: socket.socket) -> None:
    clock = StoppedClock()
    limits = StunLimits(source_per_s=1, source_burst=5)
    async with StunServer(HostPort(LOOPBACK, 0), 0, limits=limits, clock=clock) as server:
        for _ in range(50):
            udp.sendto(encode_request(os.urandom(12)), (LOOPBACK, server.addresses[0].port))
        await eventually(lambda: server.counts.dropped.get(DropReason.RATE_LIMITED) == 45)
        assert server.counts.answered == 5
        clock.now = 1.0
        for _ in range(5):
            await asyncio.get_running_loop().sock_recvfrom(udp, 2000)
        await ask_udp(udp, server.addresses[0], encode_request(os.urandom(12)))


async def test_tcp_requests_can_come_in_pieces_or_many_at_once(one_address: StunServer) -> None:
    server = one_address.addresses[0]
    reader, writer = await asyncio.open_connection(server.host, server.port)
    ids = [os.urandom(12) for _ in range(5)]
    stream = b"".join(map(encode_request, ids))
    for start in range(0, len(stream), 7):
        writer.write(stream[start : start + 7])
        await writer.drain()
        await asyncio.sleep(0)
    async with asyncio.timeout(90):
        for transaction_id in ids:
            header = await reader.readexactly(20)
            body = await reader.readexactly(struct.unpack("!H", header[2:4])[0])
            assert parse_response(header + body).transaction_id == transaction_id
    assert one_address.counts.connections == 1
    writer.close()
    await writer.wait_closed()
    await eventually(lambda: one_address.counts.connections == 0)


async def test_change_request_over_tcp_is_refused(two_addresses: StunServer) -> None:
    server = two_addresses.addresses[0]
    reader, writer = await asyncio.open_connection(server.host, server.port)
    response = await ask_tcp(reader, writer, encode_request(os.urandom(12), Change.PORT))
    assert isinstance(response, BindingError)
    assert response.code == 420
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        struct.pack("!HHI12s", 1, 0xFFFC, 0x2112A442, bytes(12)),
        struct.pack("!HHI12s", 1, 4, 0x2112A442, bytes(12)) + b"\x80\x22\x00\x09",
    ],
)
async def test_rubbish_over_tcp_ends_the_connection(one_address: StunServer, stream: bytes) -> None:
    server = one_address.addresses[0]
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(stream)
    assert await closed_by_server(reader)
    assert one_address.counts.dropped == {DropReason.MALFORMED: 1}
    assert one_address.counts.connections == 0
    writer.close()


async def test_silent_connection_is_closed_in_time() -> None:
    limits = StunLimits(idle_s=0.05)
    async with StunServer(HostPort(LOOPBACK, 0), 0, limits=limits) as server:
        reader, writer = await asyncio.open_connection(LOOPBACK, server.addresses[0].port)
        writer.write(encode_request(os.urandom(12))[:10])
        assert await closed_by_server(reader)
        assert server.counts.dropped == {DropReason.IDLE: 1}
        writer.close()


async def test_connections_are_bounded_for_a_source_and_places_come_back() -> None:
    limits = StunLimits(max_connections_per_source=2, max_connections=3)
    async with StunServer(HostPort("0.0.0.0", 0), 0, limits=limits) as server:
        port = server.addresses[0].port

        async def connect(
            source: str,
        ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection(LOOPBACK, port, local_addr=(source, 0))

        kept = [await connect(LOOPBACK), await connect(LOOPBACK)]
        await eventually(lambda: server.counts.connections == 2)
        refused, refused_writer = await connect(LOOPBACK)
        assert await closed_by_server(refused)
        kept.append(await connect("127.0.0.5"))
        await eventually(lambda: server.counts.connections == 3)
        refused_too, refused_too_writer = await connect("127.0.0.6")
        assert await closed_by_server(refused_too)
        assert server.counts.dropped == {DropReason.TOO_MANY_CONNECTIONS: 2}
        for _, writer in kept:
            writer.close()
        await eventually(lambda: server.counts.connections == 0)
        reader, writer = await connect(LOOPBACK)
        assert await ask_tcp(reader, writer, encode_request(os.urandom(12)))
        for closing in (refused_writer, refused_too_writer, writer):
            closing.close()


async def test_client_that_never_reads_its_answers_is_cut_off() -> None:
    limits = StunLimits(source_per_s=1e9, source_burst=1e9, total_per_s=1e9)
    async with StunServer(HostPort(LOOPBACK, 0), 0, limits=limits) as server:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            # As on a real network; the kernel keeps megabytes for the large segments of loopback.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
            client.setblocking(False)
            await loop.sock_connect(client, (LOOPBACK, server.addresses[0].port))
            requests = encode_request(os.urandom(12)) * 1000
            async with asyncio.timeout(120):
                while not server.counts.dropped:
                    try:
                        await loop.sock_sendall(client, requests)
                    except ConnectionError:
                        break
        await eventually(lambda: server.counts.dropped == {DropReason.SLOW_READER: 1})
        assert server.counts.connections == 0


async def test_leaving_closes_connections_and_frees_the_ports() -> None:
    async with StunServer(HostPort(LOOPBACK, 0), 0, SECOND_LOOPBACK) as server:
        addresses = server.addresses
        reader, writer = await asyncio.open_connection(LOOPBACK, addresses[0].port)
        await eventually(lambda: server.counts.connections == 1)
    assert await closed_by_server(reader)
    writer.close()
    async with StunServer(addresses[0], addresses[1].port, SECOND_LOOPBACK) as again:
        assert again.addresses == addresses


async def test_port_that_is_taken_is_the_operators_to_change() -> None:
    async with StunServer(HostPort(LOOPBACK, 0), 0) as server:
        with pytest.raises(ConfigError, match=rf"{server.addresses[1].port}.*another"):
            async with StunServer(HostPort(LOOPBACK, 0), server.addresses[1].port):
                pytest.fail("it listens twice on one port")


@pytest.mark.parametrize(
    ("host", "alternate"),
    [
        (LOOPBACK, LOOPBACK),
        ("0.0.0.0", LOOPBACK),
        (LOOPBACK, "0.0.0.0"),
        (LOOPBACK, "::1"),
        ("192.0.2.254", None),
        ("no.such.host.invalid", None),
    ],
)
async def test_addresses_that_cannot_work_are_the_operators_to_change(
    host: str, alternate: str | None
) -> None:
    with pytest.raises(ConfigError, match="STUN"):
        async with StunServer(HostPort(host, 0), 0, alternate):
            pytest.fail("it listens where it cannot")


async def test_everything_is_closed_when_listening_fails_halfway() -> None:
    with ExitStack() as taken:
        blocker = taken.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        blocker.bind((SECOND_LOOPBACK, 0))
        port = blocker.getsockname()[1]
        with pytest.raises(ConfigError):
            async with StunServer(HostPort(LOOPBACK, port), 0, SECOND_LOOPBACK):
                pytest.fail("the port is taken on the second address")
    async with StunServer(HostPort(LOOPBACK, port), 0, SECOND_LOOPBACK) as server:
        assert server.addresses[0] == HostPort(LOOPBACK, port)


UVLOOP_CHECK = """
import asyncio, uvloop
from daemon.net.nat.behavior.discover import discover_behavior
from daemon.net.nat.port_mapping.gateway import PcpMethod
from daemon.net.nat.port_mapping.request import MappingRequest
from daemon.net.nat.behavior.probe import Transport
from protocol.errors import TransportError
from protocol.uri import HostPort
from rendezvous.stun.server import StunServer

async def main():
    async with StunServer(HostPort("127.0.0.1", 0), 0, "127.0.0.2") as server:
        found = (await discover_behavior(server.addresses[:1])).ipv4
    print(found.udp.mapping, found.udp.filtering, found.tcp.mapping, server.counts.connections)
    try:
        await PcpMethod("127.0.0.1", 9).map_port(MappingRequest(Transport.TCP, 1, 1, 1))
    except TransportError as error:
        print(error)

uvloop.run(main())
"""


async def test_server_and_discovery_work_on_uvloop() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", UVLOOP_CHECK),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(90):
        out, err = await process.communicate()
    assert err == b""
    assert out.decode().splitlines() == [
        "endpoint-independent endpoint-independent endpoint-independent 0",
        "PCP: router 127.0.0.1:9: Connection refused",
    ]
