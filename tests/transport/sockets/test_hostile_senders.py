"""What strangers and admitted enemies may send: frames, connections and names."""

import asyncio
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq
from zmq.utils.monitor import parse_monitor_message

from protocol.uri import HostPort
from tests.eventually import eventually
from tests.transport.sockets.loopback import (
    ADMITTED,
    DOMAIN,
    LIMITS,
    SERVER,
    Echo,
    EchoMaker,
    Served,
    admit_known,
    bytes_received,
    closed_within,
    rss_bytes,
)
from transport.sockets.connection_table import SWEEP_INTERVAL_S
from transport.sockets.server_socket import ServerSocket
from transport.sockets.socket_options import (
    CurveClientRole,
    CurveServerRole,
    SocketLimits,
    apply_curve,
)
from transport.sockets.zap import ZapAuthenticator

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
MIB = 1 << 20

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
"""ZMTP 3.1 (RFC 37): signature, version, mechanism, as-server, filler."""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


async def test_frame_above_the_limit_ends_the_connection_and_nothing_else(echo: Echo) -> None:
    async with echo.client() as client:
        await client.connected()
        assert client.socket.send(bytes(LIMITS.max_message_bytes))
        await client.received(1)
        assert client.socket.send(bytes(LIMITS.max_message_bytes + 1))
        await eventually(lambda: len(client.events) > 1)
    assert len(echo.messages) == 1
    await echo.still_serves()


@pytest.mark.parametrize(
    "greeting",
    [b"", GREETING[:10], GREETING],
    ids=["at once", "within the greeting", "after the greeting"],
)
async def test_claim_of_a_gibibyte_before_the_handshake_takes_no_memory(
    echo: Echo, greeting: bytes
) -> None:
    before = rss_bytes()
    claim = b"\x02" + struct.pack(">Q", 1 << 30)  # A long frame, RFC 23.
    connections = [echo.raw() for _ in range(20)]
    for connection in connections:
        connection.sendall(greeting + claim)
    junk = bytes(MIB)

    def push() -> None:
        for connection in connections:
            try:
                for _ in range(8):
                    connection.sendall(junk)
            except OSError:
                continue  # Cut off, as it should be.

    await asyncio.to_thread(push)
    assert rss_bytes() - before < 20 * MIB
    for connection in connections:
        assert await asyncio.to_thread(closed_within, connection, 5.0)
        connection.close()
    await echo.still_serves()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"\x16\x03\x01" + bytes(200),
        os.urandom(4096),
        GREETING.replace(b"CURVE", b"NULL\0") + b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER",
        GREETING + b"\x04\xc8\x05HELLO" + bytes(194),
        GREETING + b"\x04\x05\x05WRONG",
    ],
    ids=["http", "tls", "random", "null mechanism", "zero hello", "unknown command"],
)
async def test_garbage_instead_of_a_handshake_is_dropped(
    serve_echo: EchoMaker, garbage: bytes
) -> None:
    limits = SocketLimits(max_message_bytes=1024, handshake_s=0.5)
    async with serve_echo(limits) as echo:
        with echo.raw() as connection:
            connection.sendall(garbage)
            assert await asyncio.to_thread(closed_within, connection, 5.0)
        assert echo.messages == []
        await echo.still_serves()


async def test_silent_connection_is_closed_when_the_handshake_is_due(
    serve_echo: EchoMaker,
) -> None:
    async with serve_echo(SocketLimits(max_message_bytes=1024, handshake_s=0.3)) as echo:
        with echo.raw() as silent:
            await eventually(lambda: echo.server.connection_count == 1)
            assert await asyncio.to_thread(closed_within, silent, 3.0)
        await eventually(lambda: echo.server.connection_count == 0)
        assert echo.server.statistics.handshakes_failed["handshake_broken"] == 1


async def test_message_of_several_frames_is_dropped_and_its_sender_cut_off(echo: Echo) -> None:
    dealer = echo.dealer()
    dealer.connect(echo.address.zmq_endpoint)
    dealer.send_multipart([b"one", b"two"])
    await eventually(lambda: echo.server.statistics.cut_off["multipart"] == 1)
    dealer.close()
    assert echo.server.statistics.dropped == {"multipart": 1}
    assert echo.messages == []
    await echo.still_serves()


async def test_message_of_endless_frames_is_cut_off_before_it_fills_memory(
    serve_echo: EchoMaker,
) -> None:
    async with serve_echo() as echo:
        await echo.still_serves()
        before = rss_bytes()
        flood = start(
            "flood_multipart.py",
            echo.address.zmq_endpoint,
            ADMITTED.public_z85.decode(),
            ADMITTED.secret_z85.decode(),
            SERVER.public_z85.decode(),
            "16000",
        )
        highest = before
        try:
            assert flood.stdout is not None
            assert await asyncio.to_thread(flood.stdout.readline) == "sent\n"
            async with asyncio.timeout(90):
                while not echo.server.statistics.cut_off:
                    highest = max(highest, rss_bytes())
                    await asyncio.sleep(0.02)
        finally:
            flood.kill()
            flood.communicate()
        # Whichever bound it meets first: so many frames, or so many bytes.
        assert list(echo.server.statistics.cut_off.values()) == [1]
        assert set(echo.server.statistics.cut_off) <= {"multipart", "unread"}
        assert len(echo.messages) == 1, "only the honest one"
        # 960 MB were on their way, 100 MB a second; what comes within a sweep's interval may
        # be held, and on a machine that is busy with other things an interval can be seconds.
        assert highest - before < 480 * MIB
        await echo.still_serves()


async def test_who_sends_faster_than_is_read_is_cut_off(
    context: "zmq.Context[zmq.Socket[bytes]]",
) -> None:
    class Busy(Served):
        def frame_received(
            self, route: bytes, curve_key: bytes, remote_ip: str, frame: zmq.Frame
        ) -> None:
            with socket.socket(fileno=os.dup(int(frame.get(zmq.SRCFD)))) as tcp:
                while bytes_received(tcp) < 32 * MIB:
                    time.sleep(0.01)
            if not self.messages:
                time.sleep(2 * SWEEP_INTERVAL_S)  # So that the books are looked at next.
            self.messages.append((route, curve_key, remote_ip, b""))

    limits = SocketLimits(max_message_bytes=64 * 1024, max_unread_bytes=4 * MIB)
    role = CurveServerRole(SERVER, DOMAIN)
    server = ServerSocket(context, HostPort("127.0.0.1", 0), role, limits, Busy())
    async with ZapAuthenticator(context) as zap, server:
        zap.add_domain(DOMAIN, admit_known)
        flood = context.socket(zmq.DEALER)
        apply_curve(flood, CurveClientRole(ADMITTED, SERVER.public))
        flood.setsockopt(zmq.LINGER, 0)
        flood.setsockopt(zmq.SNDHWM, 0)
        flood.setsockopt(zmq.RECONNECT_IVL, -1)
        flood.connect(f"tcp://127.0.0.1:{server.address.port}")
        for _ in range(1000):
            flood.send(bytes(60_000))
        await eventually(lambda: bool(server.statistics.cut_off))
        await eventually(lambda: not server.connection_count)
        flood.close()
    assert server.statistics.cut_off == {"unread": 1}


def reset(dealer: zmq.Socket[bytes], connected: zmq.Socket[bytes]) -> None:
    """Close the dealer in such a way that its connection breaks, as that of a machine that died."""
    descriptor = parse_monitor_message(connected.recv_multipart())["value"]
    dealer.disable_monitor()
    connected.close()
    with socket.socket(fileno=os.dup(descriptor)) as tcp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    dealer.close(linger=0)


async def test_who_floods_and_pings_a_busy_server_and_goes_does_not_end_it(
    context: "zmq.Context[zmq.Socket[bytes]]",
) -> None:
    server = start("busy_process.py", SERVER.secret.hex(), "3.0")
    try:
        assert server.stdout is not None
        endpoint = f"tcp://127.0.0.1:{await asyncio.to_thread(server.stdout.readline)}".strip()

        def dealer(ping_ms: int) -> zmq.Socket[bytes]:
            new = context.socket(zmq.DEALER)
            apply_curve(new, CurveClientRole(ADMITTED, SERVER.public))
            new.setsockopt(zmq.LINGER, 0)
            if ping_ms:
                new.setsockopt(zmq.HEARTBEAT_IVL, ping_ms)
                new.setsockopt(zmq.HEARTBEAT_TIMEOUT, 60_000)
            return new

        def flood() -> None:
            floods = [dealer(1) for _ in range(8)]
            connected = [one.get_monitor_socket(zmq.EVENT_CONNECTED) for one in floods]
            for one in floods:
                one.connect(endpoint)
                one.send(b"hello")
                assert one.poll(60_000)
            floods[0].send(b"busy")
            for _ in range(100):
                for one in floods:
                    for _ in range(20):
                        one.send(bytes(200))
                time.sleep(0.002)  # So that pings come between the messages.
            time.sleep(0.5)
            for one, events in zip(floods, connected, strict=True):
                reset(one, events)

        await asyncio.to_thread(flood)
        with dealer(0) as honest:
            honest.connect(endpoint)
            honest.send(b"alive?")
            assert await asyncio.to_thread(honest.poll, 60_000), server.poll()
            assert honest.recv(zmq.NOBLOCK) == b"alive?"
        await asyncio.to_thread(server.communicate, timeout=30)
        assert server.returncode == 0
    finally:
        server.kill()
        server.communicate()


async def test_who_never_reads_the_answers_is_cut_off(serve_echo: EchoMaker) -> None:
    limits = SocketLimits(max_message_bytes=64 * 1024, queue_messages=1000, max_queued_bytes=MIB)
    async with serve_echo(limits) as echo:
        dealer = echo.dealer()
        dealer.setsockopt(zmq.RCVHWM, 1)
        dealer.setsockopt(zmq.RCVBUF, 4096)
        dealer.connect(echo.address.zmq_endpoint)
        before = rss_bytes()
        frame = bytes(64 * 1024)
        async with asyncio.timeout(90):
            while not echo.server.statistics.cut_off:
                try:
                    dealer.send(frame, zmq.NOBLOCK)
                except zmq.Again:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0)
                echo.messages.clear()
        dealer.close()
        assert echo.server.statistics.cut_off == {"slow_reader": 1}
        assert rss_bytes() - before < 150 * MIB
        await echo.still_serves()


async def test_routing_id_of_another_client_gains_nothing(echo: Echo) -> None:
    async with echo.client() as client:
        await client.connected()
        assert client.socket.send(b"mine")
        await client.received(1)
        route = echo.messages[0][0]
        thief = echo.dealer()
        thief.setsockopt(zmq.ROUTING_ID, b"\1" + route[1:])
        thief.connect(echo.address.zmq_endpoint)
        copy = echo.dealer()
        copy.setsockopt(zmq.ROUTING_ID, b"\1" + route[1:])
        copy.connect(echo.address.zmq_endpoint)
        thief.send(b"stolen?")
        copy.send(b"stolen again?")
        await eventually(lambda: len(echo.messages) >= 2)
        assert client.socket.send(b"still mine")
        assert await client.received(2) == [b"mine", b"still mine"]
        thief.close()
        copy.close()


async def test_more_connections_than_allowed_are_cut_and_make_room_again(
    serve_echo: EchoMaker,
) -> None:
    limits = SocketLimits(max_message_bytes=1024, max_connections=5)
    async with serve_echo(limits) as echo:
        connections = [echo.raw() for _ in range(8)]
        await eventually(lambda: echo.server.statistics.cut_off["connections"] >= 3)
        for connection in connections:
            connection.close()
        await eventually(lambda: echo.server.connection_count == 0)
        await echo.still_serves()


@pytest.mark.parametrize("max_connections", [0, 1000], ids=["own limit", "no limit but the OS's"])
async def test_server_without_file_descriptors_lives_and_recovers(
    context: "zmq.Context[zmq.Socket[bytes]]", max_connections: int
) -> None:
    server = start("echo_process.py", SERVER.secret.hex(), str(max_connections))
    try:
        assert server.stdout is not None
        port = int(await asyncio.to_thread(server.stdout.readline))
        flood = []
        for _ in range(150):
            connection = socket.socket()
            connection.settimeout(5)
            connection.connect(("127.0.0.1", port))
            flood.append(connection)
        # Cut as too many, or when its handshake is due.
        first_to_go = flood[0] if max_connections else flood[60]
        assert await asyncio.to_thread(closed_within, first_to_go, 5.0)
        for connection in flood:
            connection.close()
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.CURVE_PUBLICKEY, ADMITTED.public_z85)
        dealer.setsockopt(zmq.CURVE_SECRETKEY, ADMITTED.secret_z85)
        dealer.setsockopt(zmq.CURVE_SERVERKEY, SERVER.public_z85)
        dealer.connect(f"tcp://127.0.0.1:{port}")
        dealer.send(b"alive?")
        assert await asyncio.to_thread(dealer.poll, 15_000)
        assert dealer.recv(zmq.NOBLOCK) == b"alive?"
        dealer.close()
        assert server.poll() is None
        output, _ = await asyncio.to_thread(server.communicate, timeout=10)
        answered, cut_off = output.split()
        assert answered == "True"
        assert (int(cut_off) > 0) == (max_connections == 0)
        assert server.returncode == 0
    finally:
        server.kill()
        server.communicate()
