"""The whole check against servers on loopback, and what it makes of those that are not there."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from daemon.cli.netcheck.check import NetcheckOptions, check_network
from daemon.cli.netcheck.stun import is_elsewhere
from daemon.net.nat.network_state import NetworkState
from daemon.net.nat.port_mapping.mapper import Router
from daemon.net.nat.port_mapping.request import MappingMethod, MappingRequest, PortMapping
from daemon.net.nat.port_mapping.trial import try_mapping
from daemon.server import ServerOptions, serve
from protocol.errors import TransportError
from protocol.uri import HostPort, ServerUri
from relay.server.limits import RelayLimits
from rendezvous.server.limits import RegistryLimits

ANY_PORT = HostPort("127.0.0.1", 0)
NOBODY = HostPort("127.0.0.1", 9)


@asynccontextmanager
async def serving(state_dir: Path) -> AsyncIterator[ServerUri]:
    ready: asyncio.Future[ServerUri] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    options = ServerOptions(ANY_PORT, state_dir, RegistryLimits(), RelayLimits())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(options, ready.set_result, stop))
        yield await ready
        stop.set()


async def test_all_that_serve_offers_is_found_and_measured(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri:
        report = await check_network(
            NetcheckOptions(rendezvous=(uri,), map_port=False),
            leads_out=lambda server, state: True,
        )
    assert report.health == ()
    assert (report.udp, report.udp_reason) == (True, "")
    assert report.public_ipv4 == "127.0.0.1"
    assert report.nat.ipv4.tcp.reachable
    assert report.port_mapping is None
    for (server,) in (report.rendezvous, report.relays):
        assert server.uri == str(uri)
        assert server.reachable
        assert server.round_trip_ms is not None
        assert server.round_trip_ms > 0
    assert {path.other: path.path for path in report.expected}["public"] == "direct"
    assert not any("no relay is known" in path.reason for path in report.expected)


async def test_servers_on_this_machine_tell_nothing_of_networks(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri:
        report = await check_network(NetcheckOptions(rendezvous=(uri,), map_port=False))
    assert report.health == ()
    assert report.rendezvous[0].reachable
    assert report.udp is None
    assert "on this machine, where nothing can be learnt about NATs" in report.udp_reason
    assert report.public_ipv4 == ""
    assert report.expected == ()


def test_what_is_sent_to_an_own_address_leads_nowhere_else() -> None:
    state = NetworkState(frozenset({"203.0.113.5"}))
    servers = (NOBODY, HostPort("203.0.113.5", 3478), HostPort("203.0.113.6", 3478))
    assert [is_elsewhere(server, state) for server in servers] == [False, False, True]


async def test_servers_that_do_not_answer_are_named_with_what_is_wrong() -> None:
    nowhere = ServerUri(bytes(range(32)), NOBODY)
    report = await check_network(
        NetcheckOptions(rendezvous=(nowhere,), relays=(nowhere,), map_port=False)
    )
    assert [item.code for item in report.health] == ["rendezvous-unreachable", "relay-unreachable"]
    assert "nobody answers there" in report.rendezvous[0].reason
    assert report.udp is None
    assert report.udp_reason == "no STUN server is known, as the rendezvous does not answer"
    assert report.expected == ()
    assert "'p2pd serve --also-443'" in report.health[0].fix


async def test_web_port_is_no_advice_where_it_was_tried() -> None:
    nowhere = [ServerUri(bytes(range(32)), HostPort("127.0.0.1", port)) for port in (9, 443)]
    report = await check_network(NetcheckOptions(rendezvous=tuple(nowhere), map_port=False))
    assert [item.code for item in report.health] == ["rendezvous-unreachable"]
    assert "--also-443" not in report.health[0].fix


async def test_silent_stun_servers_are_trouble_and_no_wonder_is_expected() -> None:
    report = await check_network(
        NetcheckOptions(stun_servers=(NOBODY,), map_port=False),
        leads_out=lambda server, state: True,
    )
    assert [item.code for item in report.health] == ["stun-unreachable"]
    assert report.nat_in_words == "not known"
    assert (report.udp, report.udp_reason) == (None, "no STUN server answers")


async def test_name_that_leads_nowhere_is_the_trouble_and_not_the_network() -> None:
    named = HostPort("nohost.invalid", 3478)
    report = await check_network(NetcheckOptions(stun_servers=(named,), map_port=False))
    (item,) = report.health
    assert item.code == "stun-unresolved"
    assert re.search(r"nohost\.invalid:3478: \w", item.text)
    assert report.udp is None
    assert "nohost.invalid:3478" in report.udp_reason


class Method:
    """Maps ports, or does not."""

    def __init__(self, refusal: str = "") -> None:
        self.mapped: list[int] = []
        self._refusal = refusal

    async def map_port(self, request: MappingRequest) -> PortMapping:
        if self._refusal:
            raise TransportError(self._refusal)
        self.mapped.append(request.internal_port)
        return PortMapping(
            "pcp",
            request.transport,
            request.internal_port,
            HostPort("203.0.113.1", request.external_port),
            request.lifetime_s,
        )

    async def unmap_port(self, mapping: PortMapping) -> None:
        self.mapped.remove(mapping.internal_port)


class Scripted(Router):
    """A router that is asked in these ways."""

    def __init__(self, methods: Sequence[MappingMethod]) -> None:
        self._methods = methods

    def methods(self, gateway: str) -> Sequence[MappingMethod]:
        assert gateway == "192.168.1.1"
        return self._methods


async def test_mapping_that_was_tried_is_taken_back() -> None:
    silent, willing = Method("no answer"), Method()

    mapping = await try_mapping("192.168.1.1", router=Scripted([silent, willing]))
    assert mapping.external.host == "203.0.113.1"
    assert willing.mapped == []


async def test_router_that_maps_nothing_is_told_with_each_reason() -> None:
    router = Scripted([Method("PCP: no"), Method("UPnP: no")])
    with pytest.raises(TransportError, match="PCP: no; UPnP: no"):
        await try_mapping("192.168.1.1", router=router)
    with pytest.raises(TransportError, match="no IPv4 default gateway"):
        await try_mapping(None, router=router)
