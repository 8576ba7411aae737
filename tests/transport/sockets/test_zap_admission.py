"""Who is let in, by ZAP."""

import asyncio
from collections.abc import Mapping

import pytest
import zmq

from protocol.uri import HostPort
from tests.eventually import eventually
from tests.transport.sockets.loopback import (
    ADMITTED,
    DOMAIN,
    SERVER,
    STRANGER,
    Echo,
    EchoMaker,
    Heard,
    Served,
)
from transport.sockets.client_socket import ClientSocket, LinkEvent, Reconnect
from transport.sockets.server_socket import ServerSocket
from transport.sockets.socket_options import CurveClientRole, CurveServerRole, SocketLimits
from transport.sockets.zap import ADMIT_TIMEOUT_S, MAX_PENDING

CROWD = 50
"""So many connect at once: a listening socket has room for 100."""


async def never() -> bool:
    await asyncio.Event().wait()
    return True


async def test_admitted_key_is_the_senders_name(echo: Echo) -> None:
    async with echo.client() as client:
        await client.connected()
        assert client.socket.send(b"hello")
        assert await client.received(1) == [b"hello"]
    [(_, curve_key, remote_ip, frame)] = echo.messages
    assert (curve_key, remote_ip, frame) == (ADMITTED.public, "127.0.0.1", b"hello")
    assert echo.zap.statistics == {"admitted": 1}


async def test_key_that_is_not_admitted_is_refused_and_told_so(echo: Echo) -> None:
    async with echo.client(STRANGER) as client:
        await eventually(lambda: LinkEvent.REFUSED in client.events)
        assert not client.socket.send(b"let me in")
    assert echo.messages == []
    assert echo.zap.statistics == {"denied": 1}
    await eventually(lambda: echo.server.statistics.handshakes_failed["handshake_refused"] == 1)
    await echo.still_serves()


@pytest.mark.parametrize(
    "options",
    [{}, {zmq.PLAIN_USERNAME: b"user", zmq.PLAIN_PASSWORD: b"password"}],
    ids=["no mechanism", "plain"],
)
async def test_client_without_curve_is_dropped(
    echo: Echo, options: Mapping[zmq.SocketOption, bytes]
) -> None:
    dealer = echo.dealer(None)
    for option, value in options.items():
        dealer.setsockopt(option, value)
    dealer.connect(echo.address.zmq_endpoint)
    dealer.send(b"plain")
    await eventually(lambda: echo.server.statistics.handshakes_failed.total() > 0)
    dealer.close()
    assert echo.messages == []
    await echo.still_serves()


async def test_socket_of_an_unknown_domain_refuses_everyone(serve_echo: EchoMaker) -> None:
    async with serve_echo(domain="another") as echo, echo.client() as client:
        await eventually(lambda: LinkEvent.REFUSED in client.events)
        assert echo.messages == []
        assert echo.zap.statistics == {"domain": 1}


async def test_without_a_zap_handler_everyone_is_refused(
    context: "zmq.Context[zmq.Socket[bytes]]",
) -> None:
    served, heard = Served(), Heard()
    limits = SocketLimits(max_message_bytes=1024, handshake_s=0.3)
    server = ServerSocket(
        context,
        HostPort("127.0.0.1", 0),
        CurveServerRole(SERVER, DOMAIN),
        limits,
        served,
    )
    async with server:
        client = ClientSocket(
            context,
            server.address,
            CurveClientRole(ADMITTED, SERVER.public),
            limits,
            heard,
            reconnect=Reconnect(0.01, 0.02),
        )
        async with client:
            await eventually(lambda: heard.events.count(LinkEvent.HANDSHAKE_FAILED) >= 2)
    assert LinkEvent.CONNECTED not in heard.events
    assert served.messages == []


async def test_client_that_expects_another_server_key_does_not_connect(echo: Echo) -> None:
    heard = Heard()
    events = heard.events
    client = ClientSocket(
        echo.context,
        echo.address,
        CurveClientRole(ADMITTED, STRANGER.public),
        SocketLimits(max_message_bytes=1024),
        heard,
        reconnect=None,
    )
    async with client:
        await eventually(lambda: LinkEvent.DISCONNECTED in events)
    assert events == [LinkEvent.HANDSHAKE_FAILED, LinkEvent.DISCONNECTED]


async def test_answer_may_take_its_time_and_others_do_not_wait_for_it(
    serve_echo: EchoMaker,
) -> None:
    slow_may_go_on = asyncio.Event()

    async def admit(curve_key: bytes, remote_ip: str) -> bool:
        if curve_key == STRANGER.public:
            await slow_may_go_on.wait()
        return True

    async with serve_echo(admit=admit) as echo, echo.client(STRANGER) as slow:
        await echo.still_serves()
        assert slow.events == []
        slow_may_go_on.set()
        await slow.connected()


async def test_failed_admission_check_lets_nobody_in_until_it_works_again(
    serve_echo: EchoMaker, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    async def admit(curve_key: bytes, remote_ip: str) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("the book of guests is lost")
        return True

    async with serve_echo(admit=admit) as echo:
        async with echo.client() as client:
            await eventually(lambda: LinkEvent.REFUSED in client.events)
        await echo.still_serves()
        assert echo.zap.statistics == {"error": 1, "admitted": 1}
    assert "the book of guests is lost" in caplog.text


async def test_admission_check_that_takes_too_long_lets_nobody_in(serve_echo: EchoMaker) -> None:
    async def admit(curve_key: bytes, remote_ip: str) -> bool:
        return await never()

    async with serve_echo(admit=admit) as echo, echo.client() as client:
        await eventually(lambda: LinkEvent.REFUSED in client.events, ADMIT_TIMEOUT_S + 2)
        assert echo.zap.statistics == {"timeout": 1}


async def test_more_checks_than_may_be_pending_are_refused_at_once(serve_echo: EchoMaker) -> None:
    async def admit(curve_key: bytes, remote_ip: str) -> bool:
        return await never()

    async with serve_echo(admit=admit) as echo:
        dealers: list[zmq.Socket[bytes]] = []
        while len(dealers) < MAX_PENDING + 5:
            for _ in range(CROWD):  # More at once would wait for TCP to try again.
                dealers.append(echo.dealer())
                dealers[-1].connect(echo.address.zmq_endpoint)
            await eventually(lambda: echo.zap._pending >= min(len(dealers), MAX_PENDING))
        await eventually(lambda: echo.zap.statistics["busy"] == len(dealers) - MAX_PENDING)
        for dealer in dealers:
            dealer.close()


async def test_errors_inside_the_block_come_out_as_they_are(serve_echo: EchoMaker) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with serve_echo():
            raise ValueError("mine")
