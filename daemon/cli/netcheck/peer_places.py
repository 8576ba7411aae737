"""The networks in which other peers usually are, for saying what to expect with each."""

from dataclasses import dataclass

from msgspec.structs import replace

from daemon.cli.netcheck.expected_path import Place
from protocol.statements.nat_behavior import (
    Dependence,
    FamilyBehavior,
    PortAllocation,
    TransportBehavior,
)

_BY_NOTHING = Dependence.ENDPOINT_INDEPENDENT
_BY_ADDRESS = Dependence.ADDRESS_DEPENDENT
_BY_PORT = Dependence.ADDRESS_AND_PORT_DEPENDENT


@dataclass(frozen=True, slots=True)
class PeerPlace:
    """A kind of network."""

    code: str
    """Never changes its meaning: scripts may rely on it."""
    text: str
    place: Place


def _nat(
    mapping: Dependence,
    filtering: Dependence,
    ports: PortAllocation,
    *,
    delta: int | None = None,
) -> FamilyBehavior:
    transport = TransportBehavior(
        reachable=True,
        translated=True,
        mapping=mapping,
        filtering=filtering,
        port_allocation=ports,
        port_delta=delta,
    )
    return FamilyBehavior(udp=transport, tcp=transport)


def _no_nat(filtering: Dependence) -> FamilyBehavior:
    transport = TransportBehavior(
        reachable=True,
        translated=False,
        mapping=_BY_NOTHING,
        filtering=filtering,
        port_allocation=PortAllocation.PRESERVING,
    )
    return FamilyBehavior(udp=transport, tcp=transport)


_HOME = _nat(_BY_NOTHING, _BY_PORT, PortAllocation.PRESERVING)

PEER_PLACES = (
    PeerPlace("public", "on a public address, nothing in front", Place(_no_nat(_BY_NOTHING))),
    PeerPlace("firewalled", "on a public address behind a firewall", Place(_no_nat(_BY_PORT))),
    PeerPlace("home", "behind a usual home router, or a carrier's too", Place(_HOME)),
    PeerPlace(
        "address-filtering",
        "behind a router that lets known addresses in",
        Place(_nat(_BY_NOTHING, _BY_ADDRESS, PortAllocation.PRESERVING)),
    ),
    PeerPlace(
        "mapped",
        "behind a router that lets everybody in, or maps a port",
        Place(_HOME, is_mapped=True),
    ),
    PeerPlace(
        "sequential",
        "behind a router that numbers connections (mapping by port)",
        Place(_nat(_BY_PORT, _BY_PORT, PortAllocation.SEQUENTIAL, delta=1)),
    ),
    PeerPlace(
        "random",
        "behind a router that draws ports at random (mapping by port)",
        Place(_nat(_BY_PORT, _BY_PORT, PortAllocation.RANDOM)),
    ),
    PeerPlace(
        "no-udp",
        "in a network that lets no UDP out",
        Place(FamilyBehavior(tcp=_HOME.tcp)),
    ),
    PeerPlace(
        "web-only",
        "in a network that lets only the web out (TCP 80 and 443)",
        Place(FamilyBehavior(tcp=replace(_HOME.tcp, only_web=True))),
    ),
)

WITH_IPV6 = PeerPlace(
    "ipv6",
    "that has IPv6 too, whatever its router does with IPv4",
    Place(FamilyBehavior(), ipv6=("2001:db8::1",)),
)
"""Places of interest to those who have IPv6."""
