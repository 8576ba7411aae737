"""Discovery through real NATs, in network namespaces: the right behaviour for each kind."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from daemon.net.nat.behavior.discover import discover_behavior
from daemon.net.nat.behavior.monitor import NatMonitor
from daemon.net.nat.network_change import MachineNetwork, NetworkWatcher
from daemon.net.nat.network_state import NetworkState, read_network_state
from protocol.statements.nat_behavior import Dependence, FamilyBehavior, NatBehavior, PortAllocation
from protocol.uri import HostPort
from rendezvous.stun.server import StunServer
from tests.eventually import eventually
from tests.natlab.lab import Host, IpStack, NatKind, NatLab, Site
from tests.natlab.requirements import natlab_marks
from tests.net.nat.lab_loop import run_on, run_on_each, serving_on
from tests.net.nat.programs import requires_program

pytestmark = natlab_marks

EI = Dependence.ENDPOINT_INDEPENDENT
AD = Dependence.ADDRESS_DEPENDENT
APD = Dependence.ADDRESS_AND_PORT_DEPENDENT

FILTERING = {
    NatKind.OPEN: EI,
    NatKind.FIREWALLED: APD,
    NatKind.FULL_CONE: EI,
    NatKind.ADDRESS_RESTRICTED: AD,
    NatKind.PORT_RESTRICTED: APD,
    NatKind.MASQUERADE: APD,
    NatKind.SYMMETRIC: APD,
    NatKind.SYMMETRIC_SEQUENTIAL: APD,
    NatKind.DOUBLE: APD,
}
"""Of the kinds that UDP gets through."""
UNTRANSLATED = {NatKind.OPEN, NatKind.FIREWALLED}
SYMMETRIC = {NatKind.SYMMETRIC, NatKind.SYMMETRIC_SEQUENTIAL}


@dataclass
class Internet:
    lab: NatLab
    server: Host
    sites: dict[NatKind, Site]

    def stun(self, *ports: int, addresses: int = 1) -> list[HostPort]:
        hosts = [str(address) for address in self.server.ipv4[:addresses]]
        return [HostPort(host, port) for host in hosts for port in ports]

    @contextmanager
    def round_trip(self, round_trip_ms: float) -> Iterator[None]:
        for site in self.sites.values():
            self.lab.set_round_trip(site, round_trip_ms)
        yield
        for site in self.sites.values():
            self.lab.set_round_trip(site, 0)


@pytest.fixture(scope="module")
def internet() -> Iterator[Internet]:
    """A site of each kind, and a STUN server on two addresses and on the ports of the web too."""
    with NatLab() as lab, ExitStack() as stack:
        server = lab.add_public_host("server", addresses=2)
        first, second = map(str, server.ipv4)
        for ports in ((3478, 3479), (80, 443)):
            stack.enter_context(
                serving_on(lab, server, _stun_server(HostPort(first, ports[0]), ports[1], second))
            )
        sites = {kind: lab.add_site(kind.value, kind) for kind in NatKind}
        yield Internet(lab, server, sites)


def _stun_server(
    primary: HostPort, alternate_port: int, alternate_host: str | None = None
) -> Callable[[], StunServer]:
    return lambda: StunServer(primary, alternate_port, alternate_host)


@pytest.fixture(scope="module")
def found(internet: Internet) -> dict[str, FamilyBehavior]:
    """What every site finds out with one endpoint of the server, all at the same time."""
    return discover_everywhere(internet, internet.stun(3478))


def discover_everywhere(internet: Internet, servers: list[HostPort]) -> dict[str, FamilyBehavior]:
    hosts = {kind.value: site.host for kind, site in internet.sites.items()}
    behaviors = run_on_each(internet.lab, hosts, lambda: discover_behavior(servers))
    return {name: behavior.ipv4 for name, behavior in behaviors.items()}


@pytest.mark.parametrize("kind", FILTERING)
def test_udp_behaviour_is_told(
    internet: Internet, found: dict[str, FamilyBehavior], kind: NatKind
) -> None:
    udp = found[kind.value].udp
    assert udp.reachable
    assert udp.public_host == str(internet.sites[kind].public_ipv4)
    assert udp.translated is (kind not in UNTRANSLATED)
    assert udp.mapping == (APD if kind in SYMMETRIC else EI)
    assert udp.filtering == FILTERING[kind]


@pytest.mark.parametrize("kind", [*FILTERING, NatKind.UDP_BLOCKED])
def test_tcp_mapping_is_told(
    internet: Internet, found: dict[str, FamilyBehavior], kind: NatKind
) -> None:
    tcp = found[kind.value].tcp
    assert tcp.reachable
    assert tcp.public_host == str(internet.sites[kind].public_ipv4)
    assert tcp.mapping == (APD if kind in SYMMETRIC else EI)


def test_port_allocation_is_told(found: dict[str, FamilyBehavior]) -> None:
    for transport in ("udp", "tcp"):
        told = {
            kind: getattr(found[kind.value], transport)
            for kind in (NatKind.MASQUERADE, NatKind.SYMMETRIC, NatKind.SYMMETRIC_SEQUENTIAL)
        }
        assert told[NatKind.MASQUERADE].port_allocation == PortAllocation.PRESERVING
        assert told[NatKind.SYMMETRIC].port_allocation == PortAllocation.RANDOM
        sequential = told[NatKind.SYMMETRIC_SEQUENTIAL]
        assert sequential.port_allocation == PortAllocation.SEQUENTIAL
        assert sequential.port_delta == 1


def test_blocked_udp_is_told(found: dict[str, FamilyBehavior]) -> None:
    assert found["udp-blocked"].udp_blocked
    assert not found["udp-blocked"].tcp.only_web
    assert found["udp-blocked"].tcp.mapping == EI


def test_site_for_the_web_alone_reaches_stun_on_the_ports_of_the_web(
    internet: Internet, found: dict[str, FamilyBehavior]
) -> None:
    assert found["http-only"] == FamilyBehavior()
    servers = [*internet.stun(3478), *internet.stun(443)]
    host = internet.sites[NatKind.HTTP_ONLY].host
    behavior = run_on(internet.lab, host, lambda: discover_behavior(servers)).ipv4
    assert behavior.udp_blocked
    assert behavior.tcp.mapping == EI
    assert behavior.tcp.only_web


def test_without_hairpinning_none_is_told(found: dict[str, FamilyBehavior]) -> None:
    assert {found[kind.value].hairpinning for kind in (NatKind.FULL_CONE, NatKind.DOUBLE)} == {
        False
    }
    assert found["open"].hairpinning is None


@pytest.mark.parametrize("kind", [NatKind.FULL_CONE, NatKind.PORT_RESTRICTED])
def test_hairpinning_is_told(internet: Internet, kind: NatKind) -> None:
    site = internet.lab.add_site(f"hairpin-{kind.value}", kind, hairpin=True)
    servers = internet.stun(3478)
    behavior = run_on(internet.lab, site.host, lambda: discover_behavior(servers))
    assert behavior.ipv4.hairpinning is True
    assert behavior.ipv4.udp.filtering == FILTERING[kind]


def test_far_away_the_conclusions_are_the_same(
    internet: Internet, found: dict[str, FamilyBehavior]
) -> None:
    with internet.round_trip(100):
        far = discover_everywhere(internet, internet.stun(3478))
    assert far == found


def test_two_ports_of_one_address_tell_what_they_can(internet: Internet) -> None:
    with serving_on(
        internet.lab, internet.server, _stun_server(internet.stun(4478)[0], 4479)
    ) as server:
        partly = discover_everywhere(internet, list(server.addresses))
    for kind in (NatKind.FULL_CONE, NatKind.ADDRESS_RESTRICTED):
        assert partly[kind.value].udp.mapping == Dependence.NOT_PORT_DEPENDENT
        assert partly[kind.value].udp.filtering == Dependence.NOT_PORT_DEPENDENT
        assert partly[kind.value].tcp.mapping == Dependence.NOT_PORT_DEPENDENT
    assert partly["port-restricted"].udp.filtering == APD
    for kind in SYMMETRIC:
        assert partly[kind.value].udp.mapping == APD
        assert partly[kind.value].tcp.mapping == APD


@pytest.mark.parametrize(
    ("kind", "option", "conclusion"),
    [
        (NatKind.PORT_RESTRICTED, "-m", "Endpoint Independent Mapping"),
        (NatKind.SYMMETRIC, "-m", "Address and Port Dependent Mapping"),
        (NatKind.FULL_CONE, "-f", "Endpoint Independent Filtering"),
        (NatKind.ADDRESS_RESTRICTED, "-f", "Address Dependent Filtering"),
    ],
)
@requires_program("turnutils_natdiscovery", "coturn")
def test_coturns_client_concludes_the_same_from_our_server(
    internet: Internet, kind: NatKind, option: str, conclusion: str
) -> None:
    host = internet.sites[kind].host
    server = internet.stun(3478)[0]
    argv = ["turnutils_natdiscovery", option, "-L", host.address, "-p", str(server.port)]
    done = internet.lab.run(host, [*argv, server.host], capture_output=True, text=True)
    assert f"NAT with {conclusion}!" in done.stdout


def test_both_families_are_told_at_once(internet: Internet) -> None:
    lab = internet.lab
    server = lab.add_public_host("dual-server", stack=IpStack.DUAL)
    site = lab.add_site("dual", NatKind.SYMMETRIC, stack=IpStack.DUAL)
    addresses = [HostPort(str(host), 3478) for host in (*server.ipv4, *server.ipv6)]
    with (
        serving_on(lab, server, _stun_server(addresses[0], 3479)),
        serving_on(lab, server, _stun_server(addresses[1], 3479)),
    ):
        behavior = run_on(lab, site.host, lambda: discover_behavior(addresses))
    assert behavior.ipv4.udp.translated is True
    assert behavior.ipv6.udp.translated is False
    assert behavior.ipv6.udp.public_host == str(site.host.ipv6[0])
    assert behavior.ipv6.udp.filtering == APD
    assert behavior.ipv6.tcp.mapping == EI


def test_machine_without_ipv6_finds_out_the_rest(
    internet: Internet, found: dict[str, FamilyBehavior]
) -> None:
    servers = [HostPort("2001:db8:ffff::99", 3478), *internet.stun(3478)]
    host = internet.sites[NatKind.PORT_RESTRICTED].host
    behavior = run_on(internet.lab, host, lambda: discover_behavior(servers))
    assert behavior == NatBehavior(ipv4=found["port-restricted"])


def test_router_that_reboots_or_gets_another_address_is_noticed(internet: Internet) -> None:
    """Neither is visible on the machine itself."""
    site = internet.lab.add_site("watched", NatKind.PORT_RESTRICTED)

    async def watch(server: StunServer) -> list[NatBehavior]:
        behaviors: asyncio.Queue[NatBehavior] = asyncio.Queue()

        class Reader:
            def behavior_found(self, behavior: NatBehavior) -> None:
                behaviors.put_nowait(behavior)

            def network_changed(self, state: NetworkState) -> None:
                """Nothing changes on the machine."""

        monitor = NatMonitor(server.addresses, Reader(), check_interval_s=0.1)
        seen = []
        async with asyncio.timeout(90), asyncio.TaskGroup() as group:
            running = group.create_task(monitor.run())
            seen.append(await behaviors.get())
            for happens in (site.reboot_nat, site.change_address):
                # The third check is sent once the second has seen the first one's mapping again.
                await answers(server, 3)
                await asyncio.to_thread(happens)
                seen.append(await behaviors.get())
            running.cancel()
        return seen

    before = str(site.public_ipv4)
    with serving_on(
        internet.lab, internet.server, _stun_server(internet.stun(5478)[0], 5479)
    ) as server:
        seen = run_on(internet.lab, site.host, lambda: watch(server))
    after = str(site.public_ipv4)
    assert [behavior.ipv4.udp.public_host for behavior in seen] == [before, before, after]
    assert before != after


async def answers(server: StunServer, more: int) -> None:
    """Wait until the server has given so many further answers."""
    wanted = server.counts.answered + more
    await eventually(lambda: server.counts.answered >= wanted)


def test_machine_that_moves_to_another_network_is_noticed_at_once(internet: Internet) -> None:
    site = internet.lab.add_site("moving", NatKind.PORT_RESTRICTED)
    host = site.host
    old, new = str(host.ipv4[0]), "192.168.77.10"
    gateway = old.rpartition(".")[0] + ".1"

    async def watch() -> list[NetworkState]:
        states: asyncio.Queue[NetworkState] = asyncio.Queue()
        looks: list[NetworkState] = []
        seen = []

        class Looked(MachineNetwork):
            def read_state(self) -> NetworkState:
                looks.append(super().read_state())
                return looks[-1]

        with NetworkWatcher(states.put_nowait, settle_s=0.2, network=Looked()) as watcher:
            seen.append(watcher.state)
            for commands in (
                (f"addr add {new}/24 dev eth0",),
                (
                    f"addr del {old}/24 dev eth0",
                    "route replace default via 192.168.77.1 dev eth0",
                ),
                # Away and back again within the time that the watcher lets things settle.
                (
                    f"addr del {new}/24 dev eth0",
                    f"addr add {new}/24 dev eth0",
                    "route add default via 192.168.77.1 dev eth0",
                ),
            ):
                await asyncio.to_thread(host.namespace.ip, *commands)
                async with asyncio.timeout(90):
                    seen.append(await states.get())
            # What no other machine could use makes no other network.
            looked = len(looks)
            await asyncio.to_thread(host.namespace.ip, "addr add 169.254.9.9/32 dev eth0")
            await eventually(lambda: len(looks) > looked)
            assert states.empty()
        return seen

    assert run_on(internet.lab, host, watch) == [
        NetworkState(frozenset({old}), gateway),
        NetworkState(frozenset({old, new}), gateway),
        NetworkState(frozenset({new}), "192.168.77.1"),
        NetworkState(frozenset({new}), "192.168.77.1"),
    ]


def test_state_of_a_dual_stack_machine_names_both_gateways(internet: Internet) -> None:
    site = internet.lab.add_site("both-gateways", NatKind.PORT_RESTRICTED, stack=IpStack.DUAL)
    state = internet.lab.call(site.host, read_network_state)
    assert state.addresses == {str(address) for address in (*site.host.ipv4, *site.host.ipv6)}
    assert state.gateway_ipv4 == str(site.host.ipv4[0]).rpartition(".")[0] + ".1"
    assert state.gateway_ipv6 == "fe80::1%eth0"
