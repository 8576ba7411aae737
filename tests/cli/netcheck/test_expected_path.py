"""What is expected between two places, compared with what was measured of such NATs."""

from itertools import combinations_with_replacement, product

import pytest

from daemon.cli.netcheck.expected_path import Place, expect
from daemon.cli.netcheck.peer_places import PEER_PLACES, WITH_IPV6
from daemon.net.path_kind import PathKind
from protocol.statements.nat_behavior import (
    Dependence,
    FamilyBehavior,
    PortAllocation,
    TransportBehavior,
)

PLACES = {place.code: place.place for place in PEER_PLACES}
FIXED = ("public", "firewalled", "home", "address-filtering", "mapped")
"""Those with one public port for whomever they talk to; TCP simultaneous open gets through all."""


def kind(own: str, other: str) -> PathKind:
    return expect(PLACES[own], PLACES[other]).kind


def test_expectation_is_the_same_from_both_sides() -> None:
    for own, other in product(PLACES, PLACES):
        assert kind(own, other) is kind(other, own)


@pytest.mark.parametrize("other", [code for code in PLACES if code != "web-only"])
@pytest.mark.parametrize("open_place", ["public", "mapped"])
def test_who_can_be_dialled_is_dialled(open_place: str, other: str) -> None:
    assert kind(open_place, other) is PathKind.DIRECT


def test_between_fixed_ports_nothing_but_one_connection_is_needed() -> None:
    for own, other in combinations_with_replacement(("firewalled", "home", "no-udp"), 2):
        assert expect(PLACES[own], PLACES[other]).kind is PathKind.PUNCHED
        assert expect(PLACES[own], PLACES[other]).how == "both connect at once"


def test_port_that_nobody_can_tell_is_guessed_by_a_side_whose_port_is_fixed() -> None:
    for other in ("firewalled", "home", "address-filtering"):
        assert kind("random", other) is PathKind.PUNCHED
        assert "many ports" in expect(PLACES["random"], PLACES[other]).how
        assert "gives out next" in expect(PLACES["sequential"], PLACES[other]).how


@pytest.mark.parametrize("other", ["random", "sequential"])
def test_between_a_random_port_and_another_moving_one_only_a_relay_helps(other: str) -> None:
    expectation = expect(PLACES["random"], PLACES[other])
    assert expectation.kind is PathKind.RELAY
    assert "at random" in expectation.how


@pytest.mark.parametrize("other", PLACES)
def test_network_for_the_web_alone_needs_a_relay(other: str) -> None:
    assert kind("web-only", other) is PathKind.RELAY


def test_ipv6_on_both_sides_makes_up_for_what_routers_do_with_ipv4() -> None:
    random = PLACES["random"].ipv4
    own = Place(random, ipv6=("2a00:1::1",))
    assert expect(own, Place(random, ipv6=("2a00:2::1",))).kind is PathKind.PUNCHED
    assert expect(own, WITH_IPV6.place).kind is PathKind.PUNCHED
    assert expect(own, WITH_IPV6.place).how == "both connect at once, over IPv6"
    assert expect(own, Place(random)).kind is PathKind.RELAY


def test_udp_is_expected_where_only_tcp_fails() -> None:
    home = PLACES["home"].ipv4
    no_tcp = Place(FamilyBehavior(udp=home.udp))
    assert expect(no_tcp, PLACES["home"]).kind is PathKind.ICE
    assert expect(no_tcp, PLACES["random"]).kind is PathKind.RELAY
    assert expect(no_tcp, PLACES["no-udp"]).kind is PathKind.RELAY


def test_filter_that_may_look_at_addresses_is_not_taken_for_an_open_one() -> None:
    """A STUN server with a single address cannot tell."""
    transport = TransportBehavior(
        reachable=True,
        translated=True,
        mapping=Dependence.NOT_PORT_DEPENDENT,
        filtering=Dependence.NOT_PORT_DEPENDENT,
        port_allocation=PortAllocation.PRESERVING,
    )
    own = Place(FamilyBehavior(udp=transport, tcp=transport))
    assert expect(own, PLACES["home"]).kind is PathKind.PUNCHED
