"""What a peer's record says of its NAT: enough for others to see which kinds of path make sense.

A claim, as all of protocol/statements/nat_behavior.py is. Over IPv6 nothing is translated; what is
in the way there are filters, and those show when a path is tried.

>>> from protocol.statements.nat_behavior import FamilyBehavior
>>> tcp = TransportBehavior(
...     reachable=True,
...     translated=True,
...     mapping=Dependence.ADDRESS_AND_PORT_DEPENDENT,
...     port_allocation=PortAllocation.RANDOM,
... )
>>> describe(summarize(NatBehavior(ipv4=FamilyBehavior(tcp=tcp))))
'address-and-port-dependent mapping, random ports, UDP blocked'
"""

from protocol.codec import Message
from protocol.errors import RemoteProtocolError
from protocol.statements.nat_behavior import (
    WEB_PORTS,
    Dependence,
    NatBehavior,
    PortAllocation,
    TransportBehavior,
)

MAX_HOST_LENGTH = 45


class TransportSummary(Message):
    """What the NAT does over UDP or TCP, for IPv4."""

    reachable: bool = False
    """Whether any STUN server answered."""
    mapping: Dependence = Dependence.UNKNOWN
    filtering: Dependence = Dependence.UNKNOWN
    ports: PortAllocation = PortAllocation.UNKNOWN
    only_web: bool = False
    """Whether no STUN server answered but those on WEB_PORTS."""


class NatSummary(Message):
    """A peer's NAT, for IPv4."""

    public_host: str = ""
    """The public address that STUN servers see; empty while unknown."""
    translated: bool = False
    udp: TransportSummary = TransportSummary()
    tcp: TransportSummary = TransportSummary()


def summarize(behavior: NatBehavior) -> NatSummary:
    """A summary of ``behavior`` for others."""
    ipv4 = behavior.ipv4
    return NatSummary(
        public_host=ipv4.tcp.public_host or ipv4.udp.public_host,
        translated=bool(ipv4.tcp.translated or ipv4.udp.translated),
        udp=_summarize(ipv4.udp),
        tcp=_summarize(ipv4.tcp),
    )


def check_nat_summary(summary: NatSummary) -> None:
    """Raises :class:`RemoteProtocolError` for one that is beyond its bounds."""
    if len(summary.public_host) > MAX_HOST_LENGTH:
        raise RemoteProtocolError(f"public host of {len(summary.public_host)} characters")


def lets_only_web_out(summary: NatSummary) -> bool:
    """Whether its network swallows all but TCP to WEB_PORTS, as far as is known."""
    return summary.tcp.only_web and not summary.udp.reachable


def describe(summary: NatSummary) -> str:
    """The NAT in few words, in the terms of RFC 4787, for people."""
    if not summary.tcp.reachable and not summary.udp.reachable:
        return "not known"
    if lets_only_web_out(summary):
        return f"nothing gets out but TCP to ports {WEB_PORTS[0]} and {WEB_PORTS[1]}"
    if not summary.translated:
        return "no address translation"
    tcp = summary.tcp if summary.tcp.reachable else summary.udp
    words = f"{tcp.mapping.value} mapping"
    if not maps_independently(tcp.mapping) and tcp.ports is not PortAllocation.UNKNOWN:
        words += f", {tcp.ports.value} ports"
    return words if summary.udp.reachable else f"{words}, UDP blocked"


def maps_independently(mapping: Dependence) -> bool:
    """Whether one local port has one public port for all remote endpoints, as far as is known."""
    return mapping in (Dependence.ENDPOINT_INDEPENDENT, Dependence.NOT_PORT_DEPENDENT)


def _summarize(transport: TransportBehavior) -> TransportSummary:
    return TransportSummary(
        reachable=transport.reachable,
        mapping=transport.mapping,
        filtering=transport.filtering,
        ports=transport.port_allocation,
        only_web=transport.only_web,
    )
