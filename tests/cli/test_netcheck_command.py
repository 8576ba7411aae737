"""``netcheck`` as a user types it."""

import json

import pytest

from daemon.cli.netcheck.command import describe
from daemon.cli.netcheck.report import ExpectedPath, MappingReport, NetReport, ServerReport
from daemon.control.status import HealthItem
from protocol.statements.nat_behavior import (
    Dependence,
    FamilyBehavior,
    NatBehavior,
    PortAllocation,
    TransportBehavior,
)
from tests.cli.conftest import CommandLine

NOWHERE = "p2p://" + "a" * 52 + "@127.0.0.1:9"


def test_without_a_peer_and_without_servers_the_user_is_told_what_to_give(
    p2pd: CommandLine,
) -> None:
    done = p2pd("netcheck")
    assert done.returncode == 2
    assert "--rendezvous p2p://KEY@HOST:PORT" in done.stderr
    unused = p2pd.home / "unused"
    unused.mkdir()
    done = p2pd("netcheck", "--state-dir", unused)
    assert done.returncode == 2
    assert "no peer has joined" in done.stderr


@pytest.mark.parametrize("uri", ["127.0.0.1:5555", "p2p://short@127.0.0.1:5555"])
def test_bad_uri_exits_2_and_says_how_to_write_it(p2pd: CommandLine, uri: str) -> None:
    done = p2pd("netcheck", "--rendezvous", uri)
    assert done.returncode == 2
    assert "write it as the server printed it" in done.stderr


def test_rendezvous_that_does_not_answer_exits_5_with_a_whole_document(p2pd: CommandLine) -> None:
    done = p2pd("netcheck", "--rendezvous", NOWHERE, "--no-port-mapping", "--json")
    assert done.returncode == 5, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == 1
    assert document["rendezvous"][0]["reachable"] is False
    assert document["udp"] is None
    assert "rendezvous does not answer" in document["udp_reason"]
    assert document["port_mapping"] is None
    assert [item["code"] for item in document["health"]] == ["rendezvous-unreachable"]


def test_report_says_in_words_what_the_network_does() -> None:
    udp = TransportBehavior(
        reachable=True,
        public_host="203.0.113.7",
        translated=True,
        mapping=Dependence.ADDRESS_AND_PORT_DEPENDENT,
        filtering=Dependence.ADDRESS_DEPENDENT,
        port_allocation=PortAllocation.RANDOM,
    )
    tcp = TransportBehavior(
        reachable=True,
        translated=True,
        mapping=Dependence.ENDPOINT_INDEPENDENT,
        port_allocation=PortAllocation.PRESERVING,
        only_web=True,
    )
    report = NetReport(
        udp=True,
        public_ipv4="203.0.113.7",
        public_ipv6="",
        nat=NatBehavior(ipv4=FamilyBehavior(udp=udp, tcp=tcp, hairpinning=True)),
        nat_in_words="address-and-port-dependent mapping, random ports",
        port_mapping=MappingReport(available=True, method="upnp", external_host="203.0.113.7"),
        rendezvous=(ServerReport(uri=NOWHERE, reachable=True, round_trip_ms=12.3),),
        relays=(),
        stun_servers=(),
        expected=(
            ExpectedPath(other="home", description="at home", path="relay", reason="evil\x1b[2J"),
        ),
        health=(HealthItem("udp-blocked", "no UDP", "ask"),),
    )
    assert describe(report).splitlines() == [
        "UDP             yes",
        "public address  203.0.113.7",
        "NAT             address-and-port-dependent mapping, random ports",
        "IPv4 over UDP   mapping address-and-port-dependent, ports random, filtering",
        "                address-dependent",
        "IPv4 over TCP   mapping endpoint-independent, ports preserving, to ports 80 and",
        "                443 alone",
        "hairpin         yes",
        "port mapping    yes, by upnp, at 203.0.113.7",
        "rendezvous      round trip 12.3 ms,",
        f"                {NOWHERE}",
        "relay           none that is known",
        "",
        "WITH A PEER  EXPECT  HOW",
        "at home      relay   evil\\x1b[2J",
        "",
        "! udp-blocked: no UDP",
        "  fix: ask",
    ]


def test_what_is_not_known_is_told_as_such_with_the_reason() -> None:
    report = NetReport(
        udp=None,
        udp_reason="no STUN server is known",
        public_ipv4="",
        public_ipv6="",
        nat=NatBehavior(),
        nat_in_words="not known",
        port_mapping=None,
        rendezvous=(),
        relays=(),
        stun_servers=(),
        expected=(),
        health=(),
    )
    assert describe(report).splitlines() == [
        "UDP             not known (no STUN server is known)",
        "public address  not known",
        "NAT             not known",
        "hairpin         not known",
        "port mapping    not tried",
    ]
