"""Port mapping by a real router daemon, through a real NAT, seen from outside."""

import asyncio
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from daemon.net.nat.behavior.probe import Transport
from daemon.net.nat.port_mapping.gateway import NatPmpMethod, PcpMethod
from daemon.net.nat.port_mapping.mapper import PortMapper
from daemon.net.nat.port_mapping.request import MappingMethod, MappingRequest, PortMapping
from daemon.net.nat.port_mapping.upnp import UpnpMethod
from protocol.uri import HostPort
from tests.eventually import eventually
from tests.natlab.lab import Host, NatLab
from tests.natlab.requirements import natlab_marks
from tests.net.nat.lab_loop import run_on
from tests.net.nat.miniupnpd import PUBLIC_HOST, UpnpRouter, upnp_router
from tests.net.nat.programs import requires_program

pytestmark = natlab_marks

MakeMethod = Callable[[str], MappingMethod]


@dataclass
class Home:
    lab: NatLab
    router: UpnpRouter
    stranger: Host

    def reaches(self, external: HostPort, transport: Transport, internal_port: int) -> bool:
        """Whether a stranger on the internet reaches a port of the machine at home."""
        kind = socket.SOCK_STREAM if transport is Transport.TCP else socket.SOCK_DGRAM
        with ExitStack() as stack:
            inside = stack.enter_context(
                self.lab.socket(self.router.site.host, socket.AF_INET, kind)
            )
            outside = stack.enter_context(self.lab.socket(self.stranger, socket.AF_INET, kind))
            for end in (inside, outside):
                end.settimeout(5)
            inside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            inside.bind(("0.0.0.0", internal_port))
            if transport is Transport.UDP:
                outside.sendto(b"hello", (external.host, external.port))
                return inside.recvfrom(100)[0] == b"hello"
            inside.listen()
            outside.connect((external.host, external.port))
            accepted = stack.enter_context(inside.accept()[0])
            outside.sendall(b"hello")
            return accepted.recv(100) == b"hello"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with NatLab() as lab:
        stranger = lab.add_public_host("stranger")
        with upnp_router(lab, "home", tmp_path_factory.mktemp("miniupnpd")) as router:
            yield Home(lab, router, stranger)


METHODS: dict[str, MakeMethod] = {
    "pcp": PcpMethod,
    "nat-pmp": NatPmpMethod,
    "upnp": lambda gateway: UpnpMethod(gateway, choose=random.Random(1)),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("transport", list(Transport))
@requires_program("miniupnpd", "miniupnpd-nftables")
def test_mapped_port_is_reached_from_outside_until_it_is_given_back(
    home: Home, name: str, transport: Transport
) -> None:
    home.router.restart_forgetful()
    method = METHODS[name](home.router.gateway)
    request = MappingRequest(transport, 40123, 40123, 600)
    mapping = run_on(home.lab, home.router.site.host, lambda: method.map_port(request))
    assert mapping == PortMapping(name, transport, 40123, HostPort(PUBLIC_HOST, 40123), 600)
    assert home.reaches(mapping.external, transport, 40123)
    renewed = run_on(home.lab, home.router.site.host, lambda: method.map_port(request))
    assert renewed == mapping
    assert home.router.mappings.count("dnat") == 1
    run_on(home.lab, home.router.site.host, lambda: method.unmap_port(mapping))
    assert "dnat" not in home.router.mappings


@requires_program("miniupnpd", "miniupnpd-nftables")
def test_upnp_takes_another_port_where_the_first_is_a_neighbours(home: Home) -> None:
    home.router.restart_forgetful()
    neighbour = home.lab.add_host(home.router.site)
    request = MappingRequest(Transport.TCP, 40124, 40124, 600)

    def map_port() -> "asyncio.Future[PortMapping]":
        method = UpnpMethod(home.router.gateway, choose=random.Random(1))
        return asyncio.ensure_future(method.map_port(request))

    first = run_on(home.lab, neighbour, map_port)
    second = run_on(home.lab, home.router.site.host, map_port)
    assert first.external == HostPort(PUBLIC_HOST, 40124)
    assert second.external.host == PUBLIC_HOST
    assert second.external.port != 40124
    assert home.reaches(second.external, Transport.TCP, 40124)


@pytest.mark.parametrize(("pmp", "upnp", "method"), [(True, True, "pcp"), (False, True, "upnp")])
@requires_program("miniupnpd", "miniupnpd-nftables")
def test_mapper_finds_the_router_and_maps_again_after_it_forgot(
    home: Home, pmp: bool, upnp: bool, method: str
) -> None:
    router = home.router
    router.restart_forgetful(pmp=pmp, upnp=upnp)

    async def keep_mapped() -> None:
        changes: asyncio.Queue[PortMapping | None] = asyncio.Queue()
        mapper = PortMapper(
            40125,
            changes.put_nowait,
            renewal_s=0.1,
            first_retry_s=0.1,
        )
        async with asyncio.timeout(90), asyncio.TaskGroup() as group:
            running = group.create_task(mapper.run())
            mapping = await changes.get()
            assert mapping == mapper.mapping
            assert mapping == PortMapping(
                method, Transport.TCP, 40125, HostPort(PUBLIC_HOST, 40125), 1800
            )
            await asyncio.to_thread(router.restart_forgetful, pmp=pmp, upnp=upnp)
            await eventually(lambda: "40125" in router.mappings)
            running.cancel()

    run_on(home.lab, router.site.host, keep_mapped)
    assert "dnat" not in router.mappings


@requires_program("miniupnpd", "miniupnpd-nftables")
def test_router_that_maps_nothing_is_told_so(home: Home) -> None:
    home.router.stop()

    async def try_to_map() -> str:
        mapper = PortMapper(40126, lambda mapping: pytest.fail(f"{mapping} from nowhere"))
        async with asyncio.timeout(90), asyncio.TaskGroup() as group:
            running = group.create_task(mapper.run())
            await eventually(lambda: mapper.failure not in ("", "not tried yet"))
            running.cancel()
        return mapper.failure

    failure = run_on(home.lab, home.router.site.host, try_to_map)
    assert failure.count("refused") == 2
    assert "UPnP: " in failure
