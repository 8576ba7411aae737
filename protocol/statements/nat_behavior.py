"""How a peer's NAT behaves, in the terms of RFC 4787: what peers tell each other to choose a path.

A claim of its peer, never more: a wrong one costs that peer a worse path. What could not be found
out is said as such, not guessed.

>>> company = FamilyBehavior(tcp=TransportBehavior(reachable=True, only_web=True))
>>> company.udp_blocked
True
>>> NatBehavior(ipv4=company).reachable, NatBehavior().reachable
(True, False)
"""

import enum

import msgspec

WEB_PORTS = (80, 443)
"""The TCP ports that networks let out which let nothing else out."""


class Dependence(enum.StrEnum):
    """On what of the remote endpoint a NAT's *mapping* or its *filtering* depends."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    NOT_PORT_DEPENDENT = "endpoint-independent-or-address-dependent"
    """Only ports of one address could be compared, and made no difference."""
    ENDPOINT_DEPENDENT = "address-dependent-or-address-and-port-dependent"
    """Only endpoints that differ in address and port could be compared, and made a difference."""
    UNKNOWN = "unknown"


class PortAllocation(enum.StrEnum):
    """How a NAT chooses the public port of a new mapping."""

    PRESERVING = "preserving"
    """The local port."""
    SEQUENTIAL = "sequential"
    """A fixed distance from the one before, which can be predicted."""
    RANDOM = "random"
    UNKNOWN = "unknown"


class TransportBehavior(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The findings over UDP, or over TCP."""

    reachable: bool = False
    """Whether any server answered. If none did over UDP but one did over TCP, UDP is blocked."""
    public_host: str = ""
    """The public IP address that a server saw; empty when unknown."""
    translated: bool | None = None
    """Whether the public endpoint differs from the local one. If not, there is no mapping to depend
    on anything: it counts as endpoint-independent and preserving."""
    mapping: Dependence = Dependence.UNKNOWN
    filtering: Dependence = Dependence.UNKNOWN
    """Never found out for TCP: servers do not connect back."""
    port_allocation: PortAllocation = PortAllocation.UNKNOWN
    port_delta: int | None = None
    """The step from one new mapping's public port to the next one's, when sequential."""
    only_web: bool = False
    """Servers on WEB_PORTS answered and those on other ports did not."""


class FamilyBehavior(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The findings over IPv4, or over IPv6."""

    udp: TransportBehavior = TransportBehavior()
    tcp: TransportBehavior = TransportBehavior()
    hairpinning: bool | None = None
    """Whether two peers behind this NAT reach each other at their public endpoints."""

    @property
    def udp_blocked(self) -> bool:
        """UDP gets nowhere while TCP does."""
        return self.tcp.reachable and not self.udp.reachable


class NatBehavior(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A peer's findings about its way to the Internet."""

    ipv4: FamilyBehavior = FamilyBehavior()
    ipv6: FamilyBehavior = FamilyBehavior()

    @property
    def reachable(self) -> bool:
        """Whether any server answered at all: else nothing is known."""
        return any(
            transport.reachable
            for family in (self.ipv4, self.ipv6)
            for transport in (family.udp, family.tcp)
        )
