"""What can come of ICE between two NATs, by what is known of both. Pure."""

from protocol.errors import TransportError
from protocol.statements.nat_behavior import Dependence
from protocol.statements.nat_summary import NatSummary, TransportSummary, maps_independently

_BY_PORT = (Dependence.ADDRESS_AND_PORT_DEPENDENT, Dependence.ENDPOINT_DEPENDENT)


def check_udp(own: NatSummary, peer: NatSummary) -> None:
    """Raises :class:`TransportError` when it is known that nothing can come of an attempt."""
    for whose, nat in (("this", own), ("the peer's", peer)):
        if nat.tcp.reachable and not nat.udp.reachable:
            raise TransportError(f"{whose} network lets no UDP through")


def endpoints_meet(own: TransportSummary, peer: TransportSummary) -> bool:
    """Whether connectivity checks over UDP get through both NATs.

    Each side sends to the public endpoint that a STUN server saw of the other. A NAT that maps
    each remote endpoint to another port sends from one that the other side does not know, which
    only a filter that looks at no ports lets in.

    >>> from protocol.statements.nat_behavior import Dependence
    >>> home, mobile = (
    ...     TransportSummary(reachable=True, mapping=mapping, filtering=_BY_PORT[0])
    ...     for mapping in (Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS_AND_PORT_DEPENDENT)
    ... )
    >>> endpoints_meet(home, home), endpoints_meet(home, mobile)
    (True, False)
    """
    if not own.reachable or not peer.reachable:
        return False
    return all(
        maps_independently(one.mapping) or other.filtering not in (*_BY_PORT, Dependence.UNKNOWN)
        for one, other in ((own, peer), (peer, own))
    )
