"""Two hosts of one home reach each other through their outer endpoints, or do not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.natlab.lab import NatKind, NatLab
from tests.natlab.probes import (
    Endpoint,
    fence_tcp,
    listener,
    observe_tcp,
    observe_udp,
    observers,
    received_before_fence,
    tcp_socket,
    udp_socket,
)
from tests.natlab.requirements import natlab_marks

pytestmark = natlab_marks

ONE_PORT, OTHER_PORT = 7000, 7001
HAIRPINNING = [
    NatKind.FULL_CONE,
    NatKind.ADDRESS_RESTRICTED,
    NatKind.PORT_RESTRICTED,
    NatKind.DOUBLE,
]
TRANSLATING = [*HAIRPINNING, NatKind.MASQUERADE, NatKind.SYMMETRIC, NatKind.SYMMETRIC_SEQUENTIAL]


@contextmanager
def two_hosts(
    lab: NatLab, kind: NatKind, *, hairpin: bool
) -> Iterator[tuple[socket.socket, socket.socket, Endpoint, socket.socket, Endpoint]]:
    """An observer, and of each host of one home a socket and its outer endpoint."""
    server = lab.add_public_host("server", addresses=2)
    site = lab.add_site("home", kind, hosts=2, hairpin=hairpin)
    with (
        observers(lab, server) as echo,
        udp_socket(lab, site.hosts[0], ("", ONE_PORT)) as one,
        udp_socket(lab, site.hosts[1], ("", OTHER_PORT)) as other,
    ):
        one_outside = observe_udp(one, echo.udp[0])
        other_outside = observe_udp(other, echo.udp[0])
        yield echo.udp[0], one, one_outside, other, other_outside


@pytest.mark.parametrize("kind", HAIRPINNING, ids=lambda kind: kind.value)
def test_hairpinned_datagrams_carry_the_outer_source_and_meet_the_filter(
    lab: NatLab, kind: NatKind
) -> None:
    with two_hosts(lab, kind, hairpin=True) as (observer, one, one_outside, other, other_outside):
        one.sendto(b"uninvited", other_outside)
        arrived = received_before_fence(other, observer, other_outside)
        assert arrived == ([b"uninvited"] if kind is NatKind.FULL_CONE else [])
        # The first one wanted to talk to the other, so the other is let in now, and then both are.
        other.sendto(b"answer", one_outside)
        assert one.recvfrom(100) == (b"answer", other_outside)
        one.sendto(b"again", other_outside)
        assert other.recvfrom(100) == (b"again", one_outside)


def test_hairpinned_connection_carries_the_outer_source(lab: NatLab) -> None:
    server = lab.add_public_host("server", addresses=2)
    site = lab.add_site("home", NatKind.FULL_CONE, hosts=2, hairpin=True)
    with (
        observers(lab, server) as echo,
        observe_tcp(lab, site.hosts[1], OTHER_PORT, echo.tcp[0]) as (other_outside, _, _),
        observe_tcp(lab, site.hosts[0], ONE_PORT, echo.tcp[0]) as (one_outside, _, _),
        listener(lab, site.hosts[1], ("", OTHER_PORT)) as inner,
        tcp_socket(lab, site.hosts[0], ("", ONE_PORT)) as client,
    ):
        client.connect(other_outside)
        accepted, address = inner.accept()
        with accepted:
            assert address == one_outside
            fence_tcp(client, accepted)


def test_two_hosts_of_one_home_open_a_hairpinned_connection_simultaneously(lab: NatLab) -> None:
    server = lab.add_public_host("server", addresses=2)
    site = lab.add_site("home", NatKind.PORT_RESTRICTED, hosts=2, hairpin=True)
    with (
        observers(lab, server) as echo,
        observe_tcp(lab, site.hosts[0], ONE_PORT, echo.tcp[0]) as (one_outside, _, _),
        observe_tcp(lab, site.hosts[1], OTHER_PORT, echo.tcp[0]) as (other_outside, _, _),
        tcp_socket(lab, site.hosts[0], ("", ONE_PORT)) as one,
        tcp_socket(lab, site.hosts[1], ("", OTHER_PORT)) as other,
    ):
        one.setblocking(False)
        one.connect_ex(other_outside)
        other.connect(one_outside)
        one.settimeout(5)
        fence_tcp(other, one)
        assert (one.getpeername(), other.getpeername()) == (other_outside, one_outside)


@pytest.mark.parametrize("kind", TRANSLATING, ids=lambda kind: kind.value)
def test_without_hairpinning_nothing_comes_back_in(lab: NatLab, kind: NatKind) -> None:
    with two_hosts(lab, kind, hairpin=False) as (observer, one, one_outside, other, other_outside):
        one.sendto(b"lost", other_outside)
        other.sendto(b"lost too", one_outside)
        one.sendto(b"lost again", other_outside)
        assert received_before_fence(other, observer, other_outside) == []
        assert received_before_fence(one, observer, one_outside) == []


def test_hosts_of_one_home_talk_on_their_own_network(lab: NatLab) -> None:
    site = lab.add_site("home", NatKind.SYMMETRIC, hosts=2)
    first, second = site.hosts
    with (
        udp_socket(lab, second, (second.address, 7002)) as receiver,
        udp_socket(lab, first, (first.address, 7003)) as sender,
    ):
        sender.sendto(b"neighbour", receiver.getsockname())
        assert receiver.recvfrom(100) == (b"neighbour", (first.address, 7003))


def test_homes_behind_one_carrier_meet_only_where_it_hairpins(lab: NatLab) -> None:
    server = lab.add_public_host("server", addresses=2)
    with observers(lab, server) as echo:
        for name, hairpin in (("kind", True), ("unkind", False)):
            carrier = lab.add_carrier(name, hairpin=hairpin)
            homes = [
                lab.add_site(f"{name}-{side}", NatKind.PORT_RESTRICTED, carrier=carrier)
                for side in ("left", "right")
            ]
            with (
                udp_socket(lab, homes[0].host) as one,
                udp_socket(lab, homes[1].host) as other,
            ):
                one_outside = observe_udp(one, echo.udp[0])
                other_outside = observe_udp(other, echo.udp[0])
                assert one_outside[0] == other_outside[0] == str(carrier.public)
                one.sendto(b"first", other_outside)
                other.sendto(b"second", one_outside)
                arrived = received_before_fence(one, echo.udp[0], one_outside)
                assert arrived == ([b"second"] if hairpin else [])


def test_hairpinning_is_refused_for_mappings_that_depend_on_the_remote_end(lab: NatLab) -> None:
    with pytest.raises(ValueError, match="hairpinning needs endpoint-independent mapping"):
        lab.add_site("home", NatKind.SYMMETRIC, hairpin=True)
