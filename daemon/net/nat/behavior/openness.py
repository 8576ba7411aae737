"""Whether strangers can connect to this machine over IPv4, by what its NAT was seen to do."""

import enum

from protocol.statements.nat_behavior import Dependence, FamilyBehavior
from protocol.statements.nat_summary import NatSummary, maps_independently


class Openness(enum.Enum):
    """How open a network is to those to whom this machine has sent nothing."""

    OPEN = enum.auto()
    MAYBE = enum.auto()
    """A STUN server with a single address cannot tell whether filtering looks at addresses."""
    CLOSED = enum.auto()


def openness(ipv4: FamilyBehavior) -> Openness:
    """Whether a connection from anywhere gets to a port that is listened on.

    A server cannot be asked to connect back over TCP; what passes over UDP is the best sign.
    """
    return _openness(bool(ipv4.tcp.translated), ipv4.tcp.mapping, ipv4.udp.filtering)


def summarized_openness(nat: NatSummary) -> Openness:
    """How open a peer's network is by what it says of itself; CLOSED while it says nothing.

    >>> from protocol.statements.nat_summary import TransportSummary
    >>> udp = TransportSummary(reachable=True, filtering=Dependence.ENDPOINT_INDEPENDENT)
    >>> summarized_openness(NatSummary(translated=False, udp=udp))
    <Openness.OPEN: 1>
    >>> summarized_openness(NatSummary())
    <Openness.CLOSED: 3>
    """
    return _openness(nat.translated, nat.tcp.mapping, nat.udp.filtering)


def _openness(translated: bool, mapping: Dependence, udp_filtering: Dependence) -> Openness:
    if translated and not maps_independently(mapping):
        return Openness.CLOSED  # Nobody knows the public port, and each has another one.
    match udp_filtering:
        case Dependence.ENDPOINT_INDEPENDENT:
            return Openness.OPEN
        case Dependence.NOT_PORT_DEPENDENT:
            return Openness.MAYBE
        case _:
            return Openness.CLOSED
