"""Whatever a stranger's message makes a server's handler raise, the server goes on."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import zmq

from protocol.servers.relay_messages import RELAY_VERSION, Hello, Ping, encode_control
from protocol.servers.rendezvous_messages import Describe, Lookup
from protocol.uri import HostPort, ServerUri
from relay.server.limits import RelayLimits
from relay.server.server import RelayService
from rendezvous.server.limits import RegistryLimits
from rendezvous.server.registry import Registry
from rendezvous.server.service import SOCKET_LIMITS, RendezvousService
from rendezvous.server.store import SnapshotStore
from rendezvous.stun.message import encode_request
from rendezvous.stun.responder import DropReason
from rendezvous.stun.server import StunServer
from tests.eventually import eventually
from tests.rendezvous.live import SWARM, Stranger
from transport.clock import Clock
from transport.curve import CurveKeys
from transport.sockets.server_socket import ServerSocket
from transport.sockets.socket_options import CurveServerRole
from transport.sockets.zap import ZapAuthenticator

LOOPBACK = HostPort("127.0.0.1", 0)


class FragileSocket(ServerSocket):
    """Sending raises while :attr:`is_broken`: so does whatever a handler does with a message."""

    is_broken = True

    def send(self, route: bytes, frame: bytes | zmq.Frame) -> bool:
        if self.is_broken:
            raise KeyError("a slip" * 1000)
        return super().send(route, frame)


async def admit(curve_key: bytes, remote_ip: str) -> bool:
    return True


@asynccontextmanager
async def fragile(part: str, state_dir: Path) -> AsyncIterator[tuple[FragileSocket, Stranger]]:
    keys = CurveKeys.generate()
    with zmq.Context() as context:
        async with ZapAuthenticator(context) as zap:
            zap.add_domain("test", admit)

            class Owner:
                def frame_received(
                    self, route: bytes, key: bytes, ip: str, frame: zmq.Frame
                ) -> None:
                    service = relay if part == "relay" else rendezvous
                    service.frame_received(route, key, ip, frame)

                def connection_lost(self, route: bytes) -> None:
                    """Not looked at."""

            socket = FragileSocket(
                context,
                LOOPBACK,
                CurveServerRole(keys, "test"),
                SOCKET_LIMITS,
                Owner(),
            )
            relay = RelayService(socket, RelayLimits())
            rendezvous = RendezvousService(
                socket,
                registry=Registry(RegistryLimits(), Random(1)),
                store=SnapshotStore(state_dir / "snapshot"),
                clock=Clock(),
            )
            async with socket, asyncio.TaskGroup() as tasks:
                stop = asyncio.Event()
                tasks.create_task((relay if part == "relay" else rendezvous).run(stop))
                stranger = Stranger(context, ServerUri(keys.public, socket.address))
                try:
                    yield socket, stranger
                finally:
                    stranger.close()
                    socket.is_broken = False
                    stop.set()


@pytest.mark.parametrize("part", ["rendezvous", "relay"])
async def test_message_that_makes_a_handler_raise_costs_its_own_effect_and_one_short_line(
    part: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with fragile(part, tmp_path) as (socket, stranger):
        first = encode_control(Hello(RELAY_VERSION, 1 << 20)) if part == "relay" else b""
        for _ in range(50):
            if part == "relay":
                stranger.socket.send(first)
            else:
                stranger.send(Lookup(request=1, swarm=SWARM, want=1))
        await eventually(lambda: socket.statistics.errors["KeyError"] >= 50)
        told = [line for line in caplog.messages if "KeyError" in line]
        assert len(told) == 1
        assert len(told[0]) < 500
        assert "Traceback" not in caplog.text

        socket.is_broken = False
        if part == "relay":
            stranger.socket.send(first)
            stranger.socket.send(encode_control(Ping(7)))
        else:
            stranger.send(Describe(request=1))
        assert await asyncio.to_thread(stranger.socket.poll, 5000)


async def test_stun_packet_that_makes_the_responder_raise_is_dropped_and_counted() -> None:
    class FragileClock(Clock):
        is_broken = True

        def monotonic(self) -> float:
            if self.is_broken:
                raise KeyError("a slip")
            return 0.0

    clock = FragileClock()
    async with StunServer(LOOPBACK, 0, clock=clock) as server:
        address = server.addresses[0]
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=(address.host, address.port)
        )
        request = encode_request(bytes(range(12)))
        for _ in range(3):
            transport.sendto(request)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(request)
        async with asyncio.timeout(90):
            assert await reader.read() == b""  # A stream that went wrong is closed.
        writer.close()
        await eventually(lambda: server.counts.dropped.get(DropReason.FAILED) == 4)
        clock.is_broken = False
        transport.sendto(request)
        await eventually(lambda: server.counts.answered == 1)
        transport.close()
