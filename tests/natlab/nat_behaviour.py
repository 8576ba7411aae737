"""The kinds of NAT that the laboratory builds, in the terms of RFC 4787 (TCP: RFC 5382)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class NatKind(Enum):
    """Eleven kinds of home network, by the names people use for them."""

    OPEN = "open"
    FIREWALLED = "firewalled"
    FULL_CONE = "full-cone"
    ADDRESS_RESTRICTED = "address-restricted"
    PORT_RESTRICTED = "port-restricted"
    MASQUERADE = "masquerade"
    SYMMETRIC = "symmetric"
    SYMMETRIC_SEQUENTIAL = "symmetric-sequential"
    UDP_BLOCKED = "udp-blocked"
    HTTP_ONLY = "http-only"
    DOUBLE = "double"


class Mapping(Enum):
    """How an inner endpoint (address and port) is given its outer one."""

    NONE = "no translation"
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    PORT_PRESERVING = "the same port while it is free, else a random one for each remote endpoint"
    RANDOM = "address-and-port-dependent, random ports"
    SEQUENTIAL = "address-and-port-dependent, each port one above the last"


class Filtering(Enum):
    """Who may send to an outer endpoint from outside."""

    OPEN = "everybody, mapped or not"
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


class Outbound(Enum):
    """What the inner hosts may send out."""

    EVERYTHING = "everything"
    TCP = "TCP alone"
    WEB = "TCP to ports 80 and 443 alone"


@dataclass(frozen=True, slots=True)
class NatBehaviour:
    """What one router does to TCP and UDP alike."""

    mapping: Mapping
    filtering: Filtering
    outbound: Outbound = Outbound.EVERYTHING


@dataclass(frozen=True, slots=True)
class NatOptions:
    """What may be chosen beside the kind."""

    hairpin: bool = False
    """Inner hosts reach each other through their outer endpoints. Mapping must be independent."""

    reset_unsolicited: bool = False
    """An unsolicited SYN from outside is answered with RST instead of silence."""

    udp_timeout_s: int | None = None
    """UDP mappings and permissions die after so long without a packet; None: the kernel's 30 s for
    a permission (120 s once it was answered), and mappings that stay."""

    tcp_timeout_s: int | None = None
    """TCP connections are forgotten after so long without a packet, and what comes of them later is
    dropped; None: after the kernel's five days."""

    tcp_bytes_s: int | None = None
    """Each TCP connection that passes the router carries so many bytes a second each way; what is
    above that is dropped. UDP is left alone. None: the router treats both alike."""


_HOME = NatBehaviour(Mapping.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT)

# DOUBLE is two routers in a row: the home router is this one, the carrier's CARRIER_BEHAVIOUR.
BEHAVIOURS: dict[NatKind, NatBehaviour] = {
    NatKind.OPEN: NatBehaviour(Mapping.NONE, Filtering.OPEN),
    NatKind.FIREWALLED: NatBehaviour(Mapping.NONE, Filtering.ADDRESS_AND_PORT_DEPENDENT),
    NatKind.FULL_CONE: NatBehaviour(Mapping.ENDPOINT_INDEPENDENT, Filtering.ENDPOINT_INDEPENDENT),
    NatKind.ADDRESS_RESTRICTED: NatBehaviour(
        Mapping.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_DEPENDENT
    ),
    NatKind.PORT_RESTRICTED: _HOME,
    NatKind.MASQUERADE: NatBehaviour(Mapping.PORT_PRESERVING, Filtering.ADDRESS_AND_PORT_DEPENDENT),
    NatKind.SYMMETRIC: NatBehaviour(Mapping.RANDOM, Filtering.ADDRESS_AND_PORT_DEPENDENT),
    NatKind.SYMMETRIC_SEQUENTIAL: NatBehaviour(
        Mapping.SEQUENTIAL, Filtering.ADDRESS_AND_PORT_DEPENDENT
    ),
    NatKind.UDP_BLOCKED: NatBehaviour(
        Mapping.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT, Outbound.TCP
    ),
    NatKind.HTTP_ONLY: NatBehaviour(
        Mapping.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT, Outbound.WEB
    ),
    NatKind.DOUBLE: _HOME,
}

CARRIER_BEHAVIOUR = _HOME
