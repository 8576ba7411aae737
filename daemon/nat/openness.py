"""Whether strangers can connect to this machine over IPv4, by what its NAT was seen to do."""

import enum

from protocol.nat_behavior import Dependence, FamilyBehavior
from protocol.nat_summary import maps_independently


class Openness(enum.Enum):
    """To whoever this machine has not sent anything to."""

    OPEN = enum.auto()
    MAYBE = enum.auto()
    """A STUN server with a single address cannot tell whether filtering looks at addresses."""
    CLOSED = enum.auto()


def openness(ipv4: FamilyBehavior) -> Openness:
    """Whether a connection from anywhere gets to a port that is listened on.

    A server cannot be asked to connect back over TCP; what passes over UDP is the best sign.
    """
    if ipv4.tcp.translated and not maps_independently(ipv4.tcp.mapping):
        return Openness.CLOSED  # Nobody knows the public port, and each has another one.
    match ipv4.udp.filtering:
        case Dependence.ENDPOINT_INDEPENDENT:
            return Openness.OPEN
        case Dependence.NOT_PORT_DEPENDENT:
            return Openness.MAYBE
        case _:
            return Openness.CLOSED
