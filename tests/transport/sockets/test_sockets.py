import asyncio
import os
import socket
from functools import partial

import pytest
import uvloop
import zmq

from protocol.errors import ConfigError
from protocol.uri import HostPort
from tests.eventually import eventually
from tests.free_ports import free_port
from tests.transport.sockets.loopback import (
    ADMITTED,
    DOMAIN,
    LIMITS,
    SERVER,
    Client,
    Context,
    Echo,
    EchoMaker,
    Heard,
    Served,
    bytes_received,
)
from transport.sockets.client_socket import ClientSocket, LinkEvent, Reconnect
from transport.sockets.server_socket import ServerSocket
from transport.sockets.socket_options import (
    CurveClientRole,
    CurveServerRole,
    SocketLimits,
    apply_curve,
    wire_bytes,
)
from transport.sockets.zap import ZapAuthenticator


async def exchange(echo: Echo, count: int) -> None:
    """Send ``count`` frames as fast as they are taken, and get all of them back in order."""
    async with echo.client() as client:
        await client.connected()
        for number in range(count):
            assert client.socket.send(b"%d" % number)
            if number % 32 == 31:
                await client.received(number + 1)
        assert await client.received(count) == [b"%d" % number for number in range(count)]


async def test_every_frame_comes_back_in_order(echo: Echo) -> None:
    await exchange(echo, 2000)
    assert echo.server.statistics.received == echo.server.statistics.sent == 2000
    assert not echo.server.statistics.dropped


async def test_kernel_counts_what_messages_are_said_to_take_and_looks_who_is_gone(
    context: Context,
) -> None:
    counted: list[tuple[int, int, int, int]] = []
    said = 0

    class Counting(Served):
        def frame_received(
            self, route: bytes, curve_key: bytes, remote_ip: str, frame: zmq.Frame
        ) -> None:
            nonlocal said
            said += wire_bytes([frame])
            with socket.socket(fileno=os.dup(int(frame.get(zmq.SRCFD)))) as tcp:
                received = bytes_received(tcp)
                alive = tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                gone_ms = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            counted.append((received, said, alive, gone_ms))
            server.send(route, b"")

    async def admit(curve_key: bytes, remote_ip: str) -> bool:
        return True

    role = CurveServerRole(SERVER, DOMAIN)
    server = ServerSocket(context, HostPort("127.0.0.1", 0), role, LIMITS, Counting())
    async with ZapAuthenticator(context) as zap, server:
        zap.add_domain(DOMAIN, admit)
        heard = Heard()
        client = ClientSocket(
            context, server.address, CurveClientRole(ADMITTED, SERVER.public), LIMITS, heard
        )
        async with client:
            await eventually(lambda: LinkEvent.CONNECTED in heard.events)
            sizes = (0, 0, 1, 100, 221, 222, 223, 224, 255, 256, 1000, 60_000)
            for number, size in enumerate(sizes, 1):  # One at a time: no other is in the kernel.
                assert client.send(bytes(size))
                await eventually(lambda: len(heard.frames) == number)  # noqa: B023
    handshakes = {received - said for received, said, _, _ in counted}
    assert len(handshakes) == 1, "the handshake's bytes, and nothing that a message added to them"
    assert {(alive, gone_ms) for _, _, alive, gone_ms in counted} == {(1, 30_000)}


def test_sockets_work_under_uvloop(serve_echo: EchoMaker) -> None:
    async def both_ways() -> None:
        async with serve_echo() as echo:
            await exchange(echo, 2000)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(both_ways())


@pytest.mark.parametrize(
    ("listen", "dial", "remote_ip"),
    [
        ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
        ("::1", "::1", "::1"),
        ("::", "::1", "::1"),
        ("::", "127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost", None),
    ],
)
async def test_addresses_of_both_families_and_names_work(
    serve_echo: EchoMaker, context: Context, listen: str, dial: str, remote_ip: str | None
) -> None:
    async with serve_echo(listen=HostPort(listen, 0)) as echo:
        assert echo.server.address.port > 0
        # A name is the caller's to look up; see transport.address.
        host = echo.server.address.host if dial == "localhost" else dial
        heard = Heard()
        client = ClientSocket(
            context,
            HostPort(host, echo.server.address.port),
            CurveClientRole(ADMITTED, SERVER.public),
            LIMITS,
            heard,
        )
        async with client:
            await eventually(lambda: LinkEvent.CONNECTED in heard.events)
            assert client.send(b"x")
            await eventually(lambda: len(echo.messages) == 1)
        assert remote_ip in (None, echo.messages[0][2])


async def test_address_in_use_is_a_configuration_error(serve_echo: EchoMaker) -> None:
    async with serve_echo() as echo:
        second = ServerSocket(
            echo.context,
            echo.server.address,
            CurveServerRole(SERVER, DOMAIN),
            LIMITS,
            Served(),
        )
        with pytest.raises(ConfigError, match=r"cannot listen on .*in use.*; choose another"):
            async with second:
                raise AssertionError("opened twice")
        await echo.still_serves()


async def test_name_that_does_not_exist_cannot_be_listened_on(context: Context) -> None:
    server = ServerSocket(
        context,
        HostPort("no-such-host.invalid", 0),
        CurveServerRole(SERVER, DOMAIN),
        LIMITS,
        Served(),
    )
    with pytest.raises(ConfigError, match="cannot look up"):
        async with server:
            raise AssertionError("opened")


async def test_end_of_a_connection_is_reported_and_later_sends_are_counted(echo: Echo) -> None:
    async with echo.client() as client:
        await client.connected()
        client.socket.send(b"hello")
        await client.received(1)
        route = echo.messages[0][0]
        assert echo.gone == []
    await eventually(lambda: echo.gone == [route])
    assert not echo.server.send(route, b"too late")
    assert echo.server.statistics.dropped == {"peer_gone": 1}


async def test_server_can_end_one_connection_and_its_client_comes_back(echo: Echo) -> None:
    async with echo.client() as client, echo.client() as other:
        for each in (client, other):
            await each.connected()
            each.socket.send(b"hello")
            await each.received(1)
        echo.server.disconnect(echo.messages[0][0], "flood")
        await eventually(lambda: client.events.count(LinkEvent.CONNECTED) == 2)
        assert client.events[1] is LinkEvent.DISCONNECTED
        assert other.events == [LinkEvent.CONNECTED]
        assert echo.server.statistics.cut_off == {"flood": 1}
        assert echo.gone == [echo.messages[0][0]]


async def test_route_of_a_lost_connection_is_not_the_next_ones(echo: Echo) -> None:
    for _ in range(20):
        async with echo.client() as client:
            await client.connected()
            client.socket.send(b"hello")
            await client.received(1)
    routes = [message[0] for message in echo.messages]
    await eventually(lambda: len(echo.gone) == 20)
    assert sorted(echo.gone) == sorted(routes)
    assert len(set(routes)) == 20
    assert echo.server.connection_count == 0


async def test_client_connects_from_the_source_it_was_given(echo: Echo) -> None:
    source = HostPort("127.0.0.2", free_port())
    async with echo.client(source=source) as client:
        await client.connected()
        client.socket.send(b"from elsewhere")
        await client.received(1)
    assert echo.messages[0][2] == "127.0.0.2"


def events_reach(events: list[LinkEvent], event: LinkEvent, count: int) -> bool:
    return events.count(event) == count


async def test_client_connects_when_the_server_comes_and_again_when_it_returns(
    context: Context,
) -> None:
    address = HostPort("127.0.0.1", free_port())
    heard = Heard()
    events = heard.events
    client = ClientSocket(
        context,
        address,
        CurveClientRole(ADMITTED, SERVER.public),
        LIMITS,
        heard,
        reconnect=Reconnect(0.02, 0.05),
    )

    async def admit(curve_key: bytes, remote_ip: str) -> bool:
        return True

    async with client, ZapAuthenticator(context) as zap:
        zap.add_domain(DOMAIN, admit)
        await eventually(lambda: LinkEvent.UNREACHABLE in events)
        assert not client.send(b"to nobody")
        for times in (1, 2):
            connected = partial(events_reach, events, LinkEvent.CONNECTED, times)
            disconnected = partial(events_reach, events, LinkEvent.DISCONNECTED, times)
            server = ServerSocket(
                context,
                address,
                CurveServerRole(SERVER, DOMAIN),
                LIMITS,
                Served(),
            )
            async with server:
                await eventually(connected)
            await eventually(disconnected)


async def test_client_that_shall_not_reconnect_ends_with_its_connection(
    serve_echo: EchoMaker, context: Context
) -> None:
    heard = Heard()
    events = heard.events
    async with serve_echo() as echo:
        client = ClientSocket(
            context,
            echo.address,
            CurveClientRole(ADMITTED, SERVER.public),
            LIMITS,
            heard,
            reconnect=None,
        )
        async with client:
            await eventually(lambda: events == [LinkEvent.CONNECTED])
            client.send(b"hello")
            await eventually(lambda: len(echo.messages) == 1)
            echo.server.disconnect(echo.messages[0][0], "enough")
            await eventually(lambda: len(events) == 2)
            await echo.still_serves()
            assert events == [LinkEvent.CONNECTED, LinkEvent.DISCONNECTED]
            assert not client.send(b"anyone?")


async def test_curve_server_role_does_not_depend_on_who_binds(context: Context) -> None:
    heard = Heard()
    frames, events = heard.frames, heard.events

    async def admit(curve_key: bytes, remote_ip: str) -> bool:
        return curve_key == ADMITTED.public

    binding = context.socket(zmq.DEALER)
    binding.setsockopt(zmq.LINGER, 0)
    apply_curve(binding, CurveClientRole(ADMITTED, SERVER.public))
    port = binding.bind_to_random_port("tcp://127.0.0.1")
    async with ZapAuthenticator(context) as zap:
        zap.add_domain(DOMAIN, admit)
        connecting = ClientSocket(
            context,
            HostPort("127.0.0.1", port),
            CurveServerRole(SERVER, DOMAIN),
            LIMITS,
            heard,
        )
        async with connecting:
            await eventually(lambda: events == [LinkEvent.CONNECTED])
            binding.send(b"from the one that bound")
            await eventually(lambda: frames == [b"from the one that bound"])
        assert zap.statistics == {"admitted": 1}
    binding.close()


async def test_full_queue_is_told_and_not_waited_for(serve_echo: EchoMaker) -> None:
    limits = SocketLimits(max_message_bytes=64 * 1024, queue_messages=2)
    async with serve_echo(limits) as echo:
        async with echo.client() as client:
            await client.connected()
            client.socket.send(b"hello")
            await client.received(1)
            route = echo.messages[0][0]
            taken = 0
            while echo.server.send(route, bytes(60_000)):
                taken += 1
                assert taken < 1000
        assert echo.server.statistics.dropped["queue_full"] == 1


async def test_client_cuts_a_server_that_sends_several_frames(context: Context) -> None:
    heard = Heard()
    received, events = heard.frames, heard.events

    async def admit(curve_key: bytes, remote_ip: str) -> bool:
        return True

    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    apply_curve(router, CurveServerRole(SERVER, DOMAIN))
    port = router.bind_to_random_port("tcp://127.0.0.1")
    async with ZapAuthenticator(context) as zap:
        zap.add_domain(DOMAIN, admit)
        client = Client(
            ClientSocket(
                context,
                HostPort("127.0.0.1", port),
                CurveClientRole(ADMITTED, SERVER.public),
                LIMITS,
                heard,
                reconnect=None,
            ),
            received,
            events,
        )
        async with client.socket:
            await client.connected()
            client.socket.send(b"hello")
            await eventually(lambda: bool(router.poll(0)))
            router.send_multipart([router.recv_multipart()[0], b"one", b"two"])
            await eventually(lambda: LinkEvent.DISCONNECTED in events)
    assert received == []
    router.close()
