"""Port mapping against scripted routers on loopback, well-behaved and hostile."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest
from aiohttp import web

from daemon.net.nat.behavior.probe import Transport
from daemon.net.nat.port_mapping.gateway import NatPmpMethod, PcpMethod
from daemon.net.nat.port_mapping.mapper import PortMapper, Router
from daemon.net.nat.port_mapping.request import (
    MappingMethod,
    MappingRefusedError,
    MappingRequest,
    PortMapping,
)
from daemon.net.nat.port_mapping.upnp import MAX_DOCUMENT_BYTES, UpnpMethod, is_of_gateway
from protocol.errors import TransportError
from protocol.uri import HostPort
from tests.eventually import eventually
from tests.free_ports import free_port
from tests.net.nat.conftest import LOOPBACK

REQUEST = MappingRequest(Transport.TCP, 40000, 40000, 600)
MAPPING = PortMapping("test", Transport.TCP, 40000, HostPort("203.0.113.7", 50000), 600)


class ScriptedRouter(asyncio.DatagramProtocol):
    """Answers PCP and NAT-PMP with whatever the script says; None is silence."""

    def __init__(self, answer: Callable[[bytes], Sequence[bytes]]) -> None:
        self._answer = answer
        self._transport: asyncio.DatagramTransport | None = None
        self.requests: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.requests.append(data)
        assert self._transport is not None
        for packet in self._answer(data):
            self._transport.sendto(packet, addr)


@asynccontextmanager
async def scripted_router(
    answer: Callable[[bytes], Sequence[bytes]],
) -> AsyncIterator[tuple[ScriptedRouter, int]]:
    transport, router = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: ScriptedRouter(answer), local_addr=(LOOPBACK, 0)
    )
    try:
        yield router, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def pcp_answer(request: bytes, result: int = 0) -> bytes:
    lifetime = request[4:8]
    body = request[24:42] + struct.pack("!H", 50000) + bytes(10) + bytes.fromhex("ffffcb007107")
    return bytes((2, 0x81, 0, result)) + lifetime + bytes(16) + body


def nat_pmp_answer(request: bytes, result: int = 0) -> bytes:
    if len(request) == 2:
        return struct.pack("!BBHI4s", 0, 128, result, 1, socket.inet_aton("203.0.113.7"))
    _, operation, internal, _, lifetime = struct.unpack("!BBxxHHI", request)
    return struct.pack("!BBHIHHI", 0, 128 | operation, result, 1, internal, 50000, lifetime)


async def test_pcp_maps_renews_and_unmaps_with_one_nonce() -> None:
    async with scripted_router(lambda data: [pcp_answer(data)]) as (router, port):
        method = PcpMethod(LOOPBACK, port)
        mapping = await method.map_port(REQUEST)
        assert mapping == PortMapping(
            "pcp", Transport.TCP, 40000, HostPort("203.0.113.7", 50000), 600
        )
        await method.map_port(REQUEST)
        await method.unmap_port(mapping)
    assert len({request[24:36] for request in router.requests}) == 1
    assert [struct.unpack("!I", request[4:8])[0] for request in router.requests] == [600, 600, 0]
    assert router.requests[0][8:24].hex() == "00000000000000000000ffff7f000001"


async def test_nat_pmp_maps_and_unmaps() -> None:
    async with scripted_router(lambda data: [nat_pmp_answer(data)]) as (router, port):
        method = NatPmpMethod(LOOPBACK, port)
        mapping = await method.map_port(REQUEST)
        assert mapping == PortMapping(
            "nat-pmp", Transport.TCP, 40000, HostPort("203.0.113.7", 50000), 600
        )
        await method.unmap_port(mapping)
    assert router.requests[-1].hex() == "000200009c40000000000000"


async def test_lost_packets_are_sent_again() -> None:
    heard = 0

    def answer(data: bytes) -> list[bytes]:
        nonlocal heard
        heard += 1
        return [pcp_answer(data)] if heard == 3 else []

    async with scripted_router(answer) as (router, port):
        assert (await PcpMethod(LOOPBACK, port).map_port(REQUEST)).external.port == 50000
    assert len(router.requests) == 3


async def test_silent_router_is_given_up() -> None:
    async with scripted_router(lambda data: []) as (router, port):
        with pytest.raises(TransportError, match=r"PCP: router .* does not answer"):
            await PcpMethod(LOOPBACK, port).map_port(REQUEST)
    assert len(router.requests) == 3


async def test_router_without_the_protocol_fails_at_once() -> None:
    with pytest.raises(TransportError, match=r"NAT-PMP: router .* refused"):
        await NatPmpMethod(LOOPBACK, free_port()).map_port(REQUEST)


@pytest.mark.parametrize("method", [PcpMethod, NatPmpMethod])
async def test_refusal_is_told_with_its_number(
    method: type[PcpMethod] | type[NatPmpMethod],
) -> None:
    def answer(data: bytes) -> list[bytes]:
        return [pcp_answer(data, 2) if data[0] == 2 else nat_pmp_answer(data, 2)]

    async with scripted_router(answer) as (_, port):
        with pytest.raises(MappingRefusedError, match="result 2"):
            await method(LOOPBACK, port).map_port(REQUEST)


async def test_rubbish_and_answers_to_others_are_passed_over() -> None:
    def answer(data: bytes) -> list[bytes]:
        wrong_nonce = bytearray(pcp_answer(data))
        wrong_nonce[24] ^= 1
        return [b"", b"\2", bytes(wrong_nonce), pcp_answer(data)]

    async with scripted_router(answer) as (router, port):
        mapping = await PcpMethod(LOOPBACK, port).map_port(REQUEST)
    assert mapping.external == HostPort("203.0.113.7", 50000)
    assert len(router.requests) == 1


async def test_flood_of_rubbish_ends_with_the_time_too() -> None:
    async with scripted_router(lambda data: [b"rubbish"] * 200) as (_, port):
        with pytest.raises(TransportError, match="does not answer"):
            await NatPmpMethod(LOOPBACK, port).map_port(REQUEST)


# -- UPnP devices that mean no good ------------------------------------------------------------


@asynccontextmanager
async def upnp_device(
    description: str | bytes,
    *,
    location: str | None = None,
    headers: dict[str, str] | None = None,
    status: int = 200,
) -> AsyncIterator[tuple[UpnpMethod, list[str]]]:
    """A device on loopback, and the paths that were asked of it."""
    asked: list[str] = []

    async def serve(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        body = description.encode() if isinstance(description, str) else description
        return web.Response(body=body, status=status, headers=headers, content_type="text/xml")

    runner = web.ServerRunner(web.Server(serve))
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, 0)
    await site.start()
    url = location or f"http://{LOOPBACK}:{runner.addresses[0][1]}/description.xml"
    answer = (
        "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
        f"USN: uuid:1\r\nLOCATION: {url}\r\nCACHE-CONTROL: max-age=120\r\n\r\n"
    ).encode()
    try:
        async with scripted_router(lambda data: [answer]) as (_, port):
            yield UpnpMethod(LOOPBACK, choose=random.Random(1), ssdp_port=port), asked
    finally:
        await runner.cleanup()


def nested_devices(depth: int) -> str:
    inner = "<device><deviceType>x</deviceType>" + "<deviceList>"
    outer = "</deviceList></device>"
    return f'<root xmlns="urn:schemas-upnp-org:device-1-0">{inner * depth}{outer * depth}</root>'


def many_services(count: int) -> str:
    service = (
        "<service><serviceType>urn:x:{0}</serviceType><serviceId>{0}</serviceId>"
        "<SCPDURL>/{0}.xml</SCPDURL><controlURL>/c</controlURL><eventSubURL>/e</eventSubURL>"
        "</service>"
    )
    services = "".join(service.format(number) for number in range(count))
    return (
        '<root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceType>x</deviceType>'
        f"<serviceList>{services}</serviceList></device></root>"
    )


BILLION_LAUGHS = (
    '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><a>&c;</a>'
)


@pytest.mark.parametrize(
    "description",
    [
        "",
        "no XML",
        b"\xff\xfe\0rubbish",
        "<root/>",
        nested_devices(1),
        nested_devices(3000),
        many_services(100),
        BILLION_LAUGHS,
        "<root>" + " " * (2 * MAX_DOCUMENT_BYTES),
        many_services(1).replace("/0.xml", "http://127.0.0.9:1/other-host.xml"),
    ],
)
async def test_nonsense_of_a_upnp_device_is_its_own_failure(description: str | bytes) -> None:
    async with upnp_device(description) as (method, asked):
        with pytest.raises(TransportError, match="UPnP"):
            await method.map_port(REQUEST)
    assert len(asked) <= 40


async def test_upnp_device_cannot_send_us_elsewhere() -> None:
    async with upnp_device("<root/>") as (_, asked_elsewhere):
        target = "http://127.0.0.1:1/"
        async with upnp_device("", status=302, headers={"Location": target}) as (method, asked):
            with pytest.raises(TransportError):
                await method.map_port(REQUEST)
        assert len(asked) == 1
    assert asked_elsewhere == []


async def test_answer_that_points_to_another_machine_is_not_believed() -> None:
    async with upnp_device("<root/>", location="http://127.0.0.9:80/d.xml") as (method, asked):
        with pytest.raises(TransportError, match="does not answer"):
            await method.map_port(REQUEST)
    assert asked == []


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("http://192.168.1.1:5000/d.xml", True),
        ("http://192.168.1.2:5000/d.xml", False),
        ("http://192.168.1.1@evil.example/d.xml", False),
        ("https://192.168.1.1/d.xml", False),
        ("file:///etc/passwd", False),
        ("http://[::1/d.xml", False),
        ("", False),
    ],
)
def test_only_the_gateways_own_url_is_followed(location: str, expected: bool) -> None:
    assert is_of_gateway(location, "192.168.1.1") is expected


# -- the mapper --------------------------------------------------------------------------------


class ScriptedMethod:
    """Maps as told, and keeps count."""

    def __init__(self, name: str, *, works: bool = True) -> None:
        self.name = name
        self.works = works
        self.mapped: list[MappingRequest] = []
        self.unmapped: list[PortMapping] = []
        self.hangs_on_unmap = False

    async def map_port(self, request: MappingRequest) -> PortMapping:
        self.mapped.append(request)
        if not self.works:
            raise TransportError(f"{self.name} does not work")
        return PortMapping(
            self.name, request.transport, request.internal_port, MAPPING.external, 600
        )

    async def unmap_port(self, mapping: PortMapping) -> None:
        self.unmapped.append(mapping)
        if self.hangs_on_unmap:
            await asyncio.Event().wait()


class Changes:
    """What a mapper told, one after the other."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[PortMapping | None] = asyncio.Queue()
        self.tell = self._queue.put_nowait

    async def next(self) -> PortMapping | None:
        async with asyncio.timeout(90):
            return await self._queue.get()

    @property
    def is_empty(self) -> bool:
        return self._queue.empty()


@asynccontextmanager
async def running(mapper: PortMapper) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(mapper.run())
        yield
        task.cancel()


class Scripted(Router):
    """The router that the test says."""

    def __init__(
        self,
        methods: Callable[[str], Sequence[MappingMethod]],
        gateways: Callable[[], str | None],
    ) -> None:
        self._methods = methods
        self._gateways = gateways

    def find_gateway(self) -> str | None:
        return self._gateways()

    def methods(self, gateway: str) -> Sequence[MappingMethod]:
        return self._methods(gateway)


def mapper_of(
    methods: Sequence[MappingMethod], changes: Changes, gateways: Callable[[], str | None]
) -> PortMapper:
    return PortMapper(
        40000,
        changes.tell,
        router=Scripted(lambda gateway: methods, gateways),
        renewal_s=0.005,
        first_retry_s=0.005,
    )


async def test_first_method_that_works_is_kept_renewed_and_taken_back() -> None:
    broken, working = ScriptedMethod("broken", works=False), ScriptedMethod("working")
    changes = Changes()
    mapper = mapper_of([broken, working], changes, lambda: "192.168.1.1")
    async with running(mapper):
        mapping = await changes.next()
        assert mapping is not None
        assert mapping.method == "working"
        assert (mapper.mapping, mapper.failure) == (mapping, "")
        await eventually(lambda: len(working.mapped) >= 5)
        assert len(broken.mapped) == 1
    # The renewals ask for the port that was given, and nobody hears of them.
    assert [request.external_port for request in working.mapped[:3]] == [40000, 50000, 50000]
    assert working.unmapped == [mapping]
    assert await changes.next() is None
    assert changes.is_empty
    assert mapper.mapping is None


async def test_router_that_forgets_how_is_asked_in_the_other_ways() -> None:
    first, second = ScriptedMethod("first"), ScriptedMethod("second")
    changes = Changes()
    async with running(mapper_of([first, second], changes, lambda: "192.168.1.1")):
        one = await changes.next()
        first.works = False
        two = await changes.next()
    assert one is not None
    assert two is not None
    assert (one.method, two.method) == ("first", "second")
    assert second.unmapped == [two]


async def test_failure_names_what_each_method_said_and_is_tried_again() -> None:
    methods = [ScriptedMethod("one", works=False), ScriptedMethod("two", works=False)]
    changes = Changes()
    mapper = mapper_of(methods, changes, lambda: "192.168.1.1")
    async with running(mapper):
        await eventually(lambda: len(methods[1].mapped) >= 3)
        assert mapper.failure == "one does not work; two does not work"
        methods[1].works = True
        mapping = await changes.next()
        assert mapping is not None
        assert mapping.method == "two"


async def test_without_a_gateway_nothing_is_asked() -> None:
    method, changes = ScriptedMethod("never"), Changes()
    gateways: list[str | None] = [None]
    looked = 0

    def find_gateway() -> str | None:
        nonlocal looked
        looked += 1
        return gateways[0]

    mapper = mapper_of([method], changes, find_gateway)
    async with running(mapper):
        await eventually(lambda: looked >= 3)
        assert mapper.failure == "no IPv4 default gateway"
        assert method.mapped == []
        gateways[0] = "192.168.1.1"
        assert await changes.next() is not None


async def test_another_router_is_asked_anew_and_the_old_mapping_is_void() -> None:
    asked: list[str] = []
    gateways = ["192.168.1.1"]
    changes = Changes()

    def make_methods(gateway: str) -> list[ScriptedMethod]:
        asked.append(gateway)
        return [ScriptedMethod(gateway)]

    mapper = PortMapper(
        40000,
        changes.tell,
        router=Scripted(make_methods, lambda: gateways[0]),
        renewal_s=3600,
    )
    async with running(mapper):
        first = await changes.next()
        gateways[0] = "10.0.0.1"
        mapper.network_changed()
        assert await changes.next() is None
        second = await changes.next()
    assert asked == ["192.168.1.1", "10.0.0.1"]
    assert first is not None
    assert second is not None
    assert (first.method, second.method) == ("192.168.1.1", "10.0.0.1")


async def test_mapping_whose_answer_was_not_awaited_is_taken_back_too() -> None:
    class AnswersNever(ScriptedMethod):
        async def map_port(self, request: MappingRequest) -> PortMapping:
            self.mapped.append(request)
            await asyncio.Event().wait()
            raise AssertionError("never")

    method, changes = AnswersNever("slow"), Changes()
    async with running(mapper_of([method], changes, lambda: "192.168.1.1")):
        await eventually(lambda: bool(method.mapped))
    assert [(mapping.internal_port, mapping.external.port) for mapping in method.unmapped] == [
        (40000, 40000)
    ]
    assert changes.is_empty


async def test_method_that_failed_is_not_asked_to_take_anything_back() -> None:
    method, changes = ScriptedMethod("broken", works=False), Changes()
    async with running(mapper_of([method], changes, lambda: "192.168.1.1")):
        await eventually(lambda: bool(method.mapped))
    assert method.unmapped == []


async def test_router_that_hangs_does_not_hold_up_the_end() -> None:
    method, changes = ScriptedMethod("hangs"), Changes()
    method.hangs_on_unmap = True
    async with asyncio.timeout(90):
        async with running(mapper_of([method], changes, lambda: "192.168.1.1")):
            await changes.next()
    assert len(method.unmapped) == 1
    assert await changes.next() is None
