"""What a discovery concludes behind each kind of NAT, driven without sockets."""

import random

import pytest

from daemon.net.nat.behavior.family_discovery import BehaviorDiscovery
from daemon.net.nat.behavior.probe import (
    Answered,
    BindingProbe,
    Flow,
    HairpinProbe,
    NoAnswer,
    Transport,
)
from daemon.net.nat.behavior.transport_discovery import TransportDiscovery
from protocol.statements.nat_behavior import Dependence, FamilyBehavior, PortAllocation
from protocol.uri import HostPort
from tests.net.nat.nat_model import (
    ANOTHER_ADDRESS,
    LOCAL_HOST,
    ONE_ADDRESS,
    PUBLIC_HOST,
    TWO_ADDRESSES,
    ModelNat,
    discover,
    endpoints_of,
)

EI = Dependence.ENDPOINT_INDEPENDENT
AD = Dependence.ADDRESS_DEPENDENT
APD = Dependence.ADDRESS_AND_PORT_DEPENDENT
KINDS = (EI, AD, APD)


@pytest.mark.parametrize("mapping", KINDS)
@pytest.mark.parametrize("filtering", KINDS)
def test_server_with_two_addresses_tells_every_kind(
    mapping: Dependence, filtering: Dependence
) -> None:
    found, _ = discover(ModelNat(mapping, filtering), [TWO_ADDRESSES])
    assert found.udp.mapping == mapping
    assert found.udp.filtering == filtering
    assert found.udp.translated is True
    assert found.udp.public_host == PUBLIC_HOST
    assert found.tcp.mapping == mapping
    assert found.tcp.filtering == Dependence.UNKNOWN


@pytest.mark.parametrize("filtering", KINDS)
def test_public_host_has_no_translation_but_its_firewall_filters(filtering: Dependence) -> None:
    found, probes = discover(ModelNat(filtering=filtering, translates=False), [TWO_ADDRESSES])
    assert found.udp.translated is False
    assert found.udp.mapping == EI
    assert found.udp.port_allocation == PortAllocation.PRESERVING
    assert found.udp.filtering == filtering
    assert found.udp.public_host == LOCAL_HOST
    assert found.hairpinning is None
    assert not any(isinstance(probe, HairpinProbe) for probe in probes)


@pytest.mark.parametrize(
    ("mapping", "told"),
    [(EI, Dependence.NOT_PORT_DEPENDENT), (AD, Dependence.NOT_PORT_DEPENDENT), (APD, APD)],
)
def test_two_ports_of_one_address_tell_mapping_in_part(
    mapping: Dependence, told: Dependence
) -> None:
    found, _ = discover(ModelNat(mapping), [ONE_ADDRESS], asked=endpoints_of(ONE_ADDRESS))
    assert found.udp.mapping == told
    assert found.tcp.mapping == told


@pytest.mark.parametrize(
    ("filtering", "told"),
    [(EI, Dependence.NOT_PORT_DEPENDENT), (AD, Dependence.NOT_PORT_DEPENDENT), (APD, APD)],
)
def test_two_ports_of_one_address_tell_filtering_in_part(
    filtering: Dependence, told: Dependence
) -> None:
    found, _ = discover(ModelNat(EI, filtering), [ONE_ADDRESS])
    assert found.udp.filtering == told


def test_one_endpoint_alone_tells_nothing_of_the_mapping() -> None:
    found, _ = discover(ModelNat(APD), [ONE_ADDRESS])
    assert found.udp.mapping == Dependence.UNKNOWN
    assert found.udp.reachable


@pytest.mark.parametrize(
    ("mapping", "told"),
    [(EI, EI), (AD, Dependence.ENDPOINT_DEPENDENT), (APD, Dependence.ENDPOINT_DEPENDENT)],
)
def test_two_servers_of_one_endpoint_each_tell_mapping_in_part(
    mapping: Dependence, told: Dependence
) -> None:
    found, _ = discover(ModelNat(mapping), [ONE_ADDRESS, ANOTHER_ADDRESS])
    assert found.udp.mapping == told
    assert found.tcp.mapping == told


@pytest.mark.parametrize("mapping", KINDS)
def test_two_servers_of_two_ports_each_tell_all_of_the_mapping(mapping: Dependence) -> None:
    servers = [ONE_ADDRESS, ANOTHER_ADDRESS]
    asked = [endpoint for server in servers for endpoint in endpoints_of(server)]
    found, _ = discover(ModelNat(mapping), servers, asked=asked)
    assert found.udp.mapping == mapping


@pytest.mark.parametrize("delta", [1, 2, -1, 16])
@pytest.mark.parametrize("first_port", [40_000, 65_535 - 20, 20])
def test_sequential_ports_are_told_with_their_distance(delta: int, first_port: int) -> None:
    nat = ModelNat(APD, allocation=PortAllocation.SEQUENTIAL, delta=delta, first_port=first_port)
    found, _ = discover(nat, [TWO_ADDRESSES])
    assert (found.udp.port_allocation, found.udp.port_delta) == (PortAllocation.SEQUENTIAL, delta)
    assert (found.tcp.port_allocation, found.tcp.port_delta) == (PortAllocation.SEQUENTIAL, delta)


def test_random_ports_are_told() -> None:
    found, _ = discover(ModelNat(APD, allocation=PortAllocation.RANDOM), [TWO_ADDRESSES])
    assert (found.udp.port_allocation, found.udp.port_delta) == (PortAllocation.RANDOM, None)


def test_preserved_ports_are_told_and_cost_two_probes() -> None:
    found, probes = discover(ModelNat(EI, allocation=PortAllocation.PRESERVING), [TWO_ADDRESSES])
    assert found.udp.port_allocation == PortAllocation.PRESERVING
    assert found.udp.translated is True
    allocating = [probe for probe in probes if _is_allocation(probe, Transport.UDP)]
    assert len(allocating) == 2


@pytest.mark.parametrize("hairpins", [True, False])
def test_hairpinning_is_told(hairpins: bool) -> None:
    found, _ = discover(ModelNat(EI, hairpins=hairpins), [TWO_ADDRESSES])
    assert found.hairpinning is hairpins


def test_hairpinning_stays_unknown_where_the_endpoint_cannot_be_known() -> None:
    found, _ = discover(ModelNat(APD, hairpins=True), [TWO_ADDRESSES])
    assert found.hairpinning is None


def test_blocked_udp_is_told_from_a_dead_network() -> None:
    blocked, _ = discover(ModelNat(passes_udp=False), [TWO_ADDRESSES])
    assert blocked.udp_blocked
    assert not blocked.udp.reachable
    assert blocked.udp.mapping == Dependence.UNKNOWN
    assert blocked.tcp.mapping == EI
    dead, _ = discover(ModelNat(passes_udp=False, passes_tcp=False), [TWO_ADDRESSES])
    assert dead == FamilyBehavior()
    assert not dead.udp_blocked


def test_dead_server_beside_a_living_one_changes_nothing() -> None:
    asked = [HostPort("198.51.100.77", 3478), endpoints_of(TWO_ADDRESSES)[0]]
    found, _ = discover(ModelNat(AD, AD), [TWO_ADDRESSES], asked=asked)
    assert (found.udp.mapping, found.udp.filtering) == (AD, AD)


def test_no_server_at_all_ends_at_once() -> None:
    discovery = BehaviorDiscovery([])
    assert discovery.start() == []
    assert discovery.is_done
    assert discovery.result() == FamilyBehavior()


def test_at_most_four_servers_are_asked() -> None:
    servers = [HostPort(f"198.51.100.{number}", 3478) for number in range(1, 20)]
    assert len(BehaviorDiscovery(servers).start()) == 4 * len(Transport)


@pytest.mark.parametrize("seed", range(40))
def test_order_in_which_probes_end_makes_no_difference(seed: int) -> None:
    order = random.Random(seed)
    nat = ModelNat(
        order.choice(KINDS),
        order.choice(KINDS),
        allocation=PortAllocation.SEQUENTIAL,
        delta=3,
        hairpins=True,
    )
    servers = [TWO_ADDRESSES, ANOTHER_ADDRESS]
    found, ended = discover(nat, servers, order=order)
    assert found.udp.mapping == nat.mapping
    assert found.udp.filtering == nat.filtering
    assert (found.udp.port_allocation, found.udp.port_delta) == (PortAllocation.SEQUENTIAL, 3)
    assert (found.tcp.port_allocation, found.tcp.port_delta) == (PortAllocation.SEQUENTIAL, 3)
    first_allocation = next(
        index
        for index, probe in enumerate(ended)
        if _is_allocation(probe, Transport.UDP) or _is_allocation(probe, Transport.TCP)
    )
    assert all(
        _is_allocation(probe, Transport.UDP) or _is_allocation(probe, Transport.TCP)
        for probe in ended[first_allocation:]
    ), "a probe disturbed the counting of ports"


def test_filtering_is_never_asked_from_a_port_that_sent_elsewhere() -> None:
    _, probes = discover(ModelNat(), [TWO_ADDRESSES])
    contacted: dict[Flow, set[HostPort]] = {}
    for probe in probes:
        if isinstance(probe, BindingProbe):
            contacted.setdefault(probe.flow, set()).add(probe.server)
    changing = {probe.flow for probe in probes if isinstance(probe, BindingProbe) and probe.change}
    assert changing
    assert all(len(contacted[flow]) == 1 for flow in changing)


def _is_allocation(probe: object, transport: Transport) -> bool:
    return (
        isinstance(probe, BindingProbe)
        and probe.flow.transport is transport
        and probe.flow.purpose.startswith("allocation")
    )


@pytest.mark.parametrize(("silent_port", "only_web"), [(3478, True), (80, False), (None, False)])
def test_network_for_the_web_alone_is_told_by_the_ports_that_answer(
    silent_port: int | None, only_web: bool
) -> None:
    servers = [HostPort("198.51.100.1", 3478), HostPort("198.51.100.1", 80)]
    discovery = TransportDiscovery(Transport.TCP, servers)
    answer = Answered(HostPort(LOCAL_HOST, 40_000), HostPort(PUBLIC_HOST, 50_000), None)
    for probe in discovery.start():
        is_silent = probe.server.port == silent_port
        discovery.probe_ended(probe, NoAnswer.SILENT if is_silent else answer)
    assert discovery.result().only_web is only_web
