"""What can come of punching between two NATs, by what is known of both. Pure."""

from daemon.net.nat.behavior.openness import Openness, summarized_openness
from protocol.errors import TransportError
from protocol.statements.nat_behavior import WEB_PORTS, PortAllocation
from protocol.statements.nat_summary import NatSummary, lets_only_web_out, maps_independently

_UNFIXED = (PortAllocation.SEQUENTIAL, PortAllocation.RANDOM)


def check_tcp(own: NatSummary, peer: NatSummary) -> None:
    """Raises :class:`TransportError` when it is known that nothing can come of an attempt."""
    if own.public_host and own.public_host == peer.public_host:
        return  # They may share a LAN.
    for whose, nat in (("this", own), ("the peer's", peer)):
        if lets_only_web_out(nat):
            raise TransportError(
                f"{whose} network lets nothing out but TCP to ports {WEB_PORTS[0]} and"
                f" {WEB_PORTS[1]}"
            )


def takes_many_ports(own: NatSummary, peer: NatSummary) -> bool:
    """Whether an attempt is likely to take many ports at once.

    It is where one NAT gives ports out at random and the other one does not change them, as far
    as is known (daemon/net/paths/punched/plan.py).
    """
    return any(
        _ports(one) is PortAllocation.RANDOM and _ports(other) not in _UNFIXED
        for one, other in ((own, peer), (peer, own))
    )


def can_be_dialled(own: NatSummary, peer: NatSummary) -> bool:
    """Whether one of the two is likely to be reached by plain dialling from anywhere.

    >>> from protocol.statements.nat_behavior import Dependence
    >>> from protocol.statements.nat_summary import TransportSummary
    >>> open_udp = TransportSummary(reachable=True, filtering=Dependence.ENDPOINT_INDEPENDENT)
    >>> unknown = NatSummary()
    >>> can_be_dialled(NatSummary(udp=open_udp), unknown), can_be_dialled(unknown, unknown)
    (True, False)
    """
    return any(summarized_openness(nat) is not Openness.CLOSED for nat in (own, peer))


def _ports(nat: NatSummary) -> PortAllocation:
    """How another public port is chosen for each connection; UNKNOWN too if it is not another."""
    if not nat.translated or maps_independently(nat.tcp.mapping):
        return PortAllocation.UNKNOWN
    return nat.tcp.ports
