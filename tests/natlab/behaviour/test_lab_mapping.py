"""Each kind of NAT maps inner endpoints as its name says, for UDP and TCP alike."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.natlab.lab import NatKind, NatLab, PublicHost, Site
from tests.natlab.probes import (
    Endpoint,
    Observers,
    fence_tcp,
    observe_tcp,
    observe_udp,
    observers,
    tcp_socket,
    udp_socket,
    waiting,
)
from tests.natlab.requirements import natlab_marks

pytestmark = natlab_marks

LOCAL_PORT = 7000
UDP_KINDS = [kind for kind in NatKind if kind not in (NatKind.UDP_BLOCKED, NatKind.HTTP_ONLY)]


@dataclass(frozen=True, slots=True)
class Street:
    """A public host and one home of each kind, with two hosts each."""

    lab: NatLab
    server: PublicHost
    observers: Observers
    sites: dict[NatKind, Site]


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    with NatLab() as lab:
        server = lab.add_public_host("server", addresses=2)
        sites = {kind: lab.add_site(kind.value, kind, hosts=2) for kind in NatKind}
        with observers(lab, server) as echo:
            yield Street(lab, server, echo, sites)


def udp_endpoints(street: Street, kind: NatKind) -> list[Endpoint]:
    with udp_socket(street.lab, street.sites[kind].host, ("", LOCAL_PORT)) as client:
        return [observe_udp(client, observer) for observer in street.observers.udp]


def tcp_endpoints(street: Street, kind: NatKind) -> list[Endpoint]:
    host = street.sites[kind].host
    with contextlib.ExitStack() as stack:
        return [
            stack.enter_context(observe_tcp(street.lab, host, LOCAL_PORT, observer))[0]
            for observer in street.observers.tcp
        ]


def check_mapping(street: Street, kind: NatKind, endpoints: list[Endpoint]) -> None:
    site = street.sites[kind]
    addresses = {address for address, _ in endpoints}
    ports = [port for _, port in endpoints]
    assert addresses == {str(site.public_ipv4)}
    match kind:
        case NatKind.OPEN | NatKind.FIREWALLED:
            assert addresses == {site.host.address}
            assert set(ports) == {LOCAL_PORT}
        case NatKind.MASQUERADE:
            assert set(ports) == {LOCAL_PORT}
        case NatKind.SYMMETRIC:
            assert len(set(ports)) == len(ports)
            assert ports != list(range(ports[0], ports[0] + len(ports)))
        case NatKind.SYMMETRIC_SEQUENTIAL:
            assert ports == list(range(ports[0], ports[0] + len(ports)))
        case _:
            assert len(set(ports)) == 1
            assert ports[0] != LOCAL_PORT


@pytest.mark.parametrize("kind", UDP_KINDS, ids=lambda kind: kind.value)
def test_udp_endpoint_is_mapped_as_the_kind_says(street: Street, kind: NatKind) -> None:
    check_mapping(street, kind, udp_endpoints(street, kind))


@pytest.mark.parametrize("kind", NatKind, ids=lambda kind: kind.value)
def test_tcp_endpoint_is_mapped_as_the_kind_says(street: Street, kind: NatKind) -> None:
    check_mapping(street, kind, tcp_endpoints(street, kind))


@pytest.mark.parametrize("kind", UDP_KINDS, ids=lambda kind: kind.value)
def test_same_port_on_two_inner_hosts_gets_two_outer_endpoints(
    street: Street, kind: NatKind
) -> None:
    first, second = street.sites[kind].hosts
    with (
        udp_socket(street.lab, first, ("", 7001)) as one,
        udp_socket(street.lab, second, ("", 7001)) as other,
    ):
        observer = street.observers.udp[0]
        assert observe_udp(one, observer) != observe_udp(other, observer)


def test_homes_may_use_the_same_private_network(lab: NatLab) -> None:
    server = lab.add_public_host("server", addresses=2)
    homes = [
        lab.add_site(name, NatKind.MASQUERADE, lan="192.168.1.0/24") for name in ("one", "other")
    ]
    assert homes[0].host.address == homes[1].host.address
    with observers(lab, server) as echo:
        for home in homes:
            with udp_socket(lab, home.host) as client:
                outside = observe_udp(client, echo.udp[0])
                assert outside[0] == str(home.public_ipv4)
                echo.udp[0].sendto(b"back", outside)
                assert client.recv(100) == b"back"


def test_independent_mapping_never_gives_one_port_to_two_endpoints(street: Street) -> None:
    host = street.sites[NatKind.PORT_RESTRICTED].host
    ports = []
    for _ in range(300):
        with udp_socket(street.lab, host) as client:
            ports.append((client.getsockname()[1], observe_udp(client, street.observers.udp[0])[1]))
    assert len({outer for _, outer in ports}) == len({inner for inner, _ in ports})


@pytest.mark.parametrize("kind", [NatKind.UDP_BLOCKED, NatKind.HTTP_ONLY])
def test_udp_is_silently_dropped_where_it_is_blocked(street: Street, kind: NatKind) -> None:
    site = street.sites[kind]
    with udp_socket(street.lab, site.host) as client:
        for observer in street.observers.udp:
            client.sendto(b"lost", observer.getsockname())
        with observe_tcp(street.lab, site.host, 0, street.observers.tcp[0]) as (_, near, far):
            fence_tcp(near, far)
        assert not any(waiting(observer) for observer in street.observers.udp)
        assert not waiting(client)  # no ICMP error either


def test_http_only_lets_no_other_port_out(street: Street) -> None:
    site = street.sites[NatKind.HTTP_ONLY]
    with (
        tcp_socket(street.lab, street.server, (street.server.address, 8080)) as other_port,
        tcp_socket(street.lab, site.host) as client,
        observe_tcp(street.lab, site.host, 0, street.observers.tcp[0]) as (_, near, far),
    ):
        other_port.listen()
        client.setblocking(False)
        assert client.connect_ex(other_port.getsockname()) != 0
        fence_tcp(near, far)
        assert not waiting(other_port)
        assert not waiting(client)


def test_udp_blocked_lets_any_tcp_port_out(street: Street) -> None:
    site = street.sites[NatKind.UDP_BLOCKED]
    with tcp_socket(street.lab, street.server, (street.server.address, 8081)) as other_port:
        other_port.listen()
        with observe_tcp(street.lab, site.host, 0, other_port) as (endpoint, near, far):
            fence_tcp(near, far)
            assert endpoint[0] == str(site.public_ipv4)
