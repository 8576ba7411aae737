"""The path that two peers can expect by what their networks do. Pure.

Asked of what decides the same when peers connect: who can be dialled
(daemon/net/nat/behavior/openness.py), whether punching has a prospect and which plans there are
(daemon/net/paths/punched/prospect.py, punch_plan.py), and whether ICE has one
(daemon/net/paths/ice/prospect.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from daemon.net.nat.behavior.openness import Openness, openness
from daemon.net.path_kind import PathKind
from daemon.net.paths.ice.prospect import check_udp, endpoints_meet
from daemon.net.paths.punched.plan import MANY_PORTS, make_plan
from daemon.net.paths.punched.port import next_port
from daemon.net.paths.punched.prospect import check_tcp
from protocol.errors import TransportError
from protocol.peers.signal_messages import NextPort, PunchEnd
from protocol.statements.nat_behavior import FamilyBehavior, NatBehavior
from protocol.statements.nat_summary import NatSummary, summarize
from protocol.uri import HostPort

_LOCAL_PORT = 40_000
_PUBLIC_HOSTS = ("192.0.2.1", "198.51.100.1")
"""Public addresses for the two peers, where it does not matter which (RFC 5737)."""


@dataclass(frozen=True, slots=True)
class Place:
    """The network that a peer is in."""

    ipv4: FamilyBehavior
    is_mapped: bool = False
    """Its router passes a port on to it, and is not behind another one."""
    ipv6: Sequence[str] = ()
    """Its addresses that are valid everywhere."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is likely between two places."""

    kind: PathKind
    how: str
    """How to get that path, as text for people."""


def expect(own: Place, other: Place) -> Expectation:
    """The best kind of path that should come about between them, whoever they are."""
    if _can_dial(own, other):
        return Expectation(PathKind.DIRECT, "this peer connects to the other one")
    if _can_dial(other, own):
        return Expectation(PathKind.DIRECT, "the other one connects to this peer")
    try:
        return Expectation(PathKind.PUNCHED, _punching(own, other))
    except TransportError as error:
        why_not = str(error)
    if _ice_works(own, other):
        return Expectation(PathKind.ICE, f"over UDP; no TCP connection: {why_not}")
    return Expectation(PathKind.RELAY, f"no other way: {why_not}")


def _can_dial(one: Place, other: Place) -> bool:
    is_there = other.is_mapped or openness(other.ipv4) is Openness.OPEN
    tcp = one.ipv4.tcp
    return tcp.reachable and not tcp.only_web and is_there


def _punching(own: Place, other: Place) -> str:
    """How both punch. Raises :class:`TransportError` when there is no plan for it."""
    check_tcp(_summary(own), _summary(other))
    ends = [
        _punch_end(place, host) for place, host in zip((own, other), _PUBLIC_HOSTS, strict=True)
    ]
    plans = [
        make_plan(
            one,
            another,
            seen=_PUBLIC_HOSTS,
            local_port=_LOCAL_PORT,
            most_sockets=MANY_PORTS,
            random=Random(0),
        )
        for one, another in (ends, reversed(ends))
    ]
    if any(plan.is_heavy for plan in plans):
        return "both connect at once, trying many ports: mostly within half a minute, not always"
    if any(end.next_port is NextPort.SEQUENTIAL for end in ends) and all(
        end.public for end in ends
    ):
        return "both connect at once, to the port that the router gives out next"
    if not all(end.public for end in ends):
        return "both connect at once, over IPv6"
    return "both connect at once"


def _punch_end(place: Place, public_host: str) -> PunchEnd:
    port, step = next_port(place.ipv4.tcp, ())
    public = str(HostPort(public_host, _LOCAL_PORT)) if place.ipv4.tcp.reachable else ""
    return PunchEnd(
        public=public,
        hosts=tuple(str(HostPort(host, _LOCAL_PORT)) for host in place.ipv6),
        next_port=port,
        port_step=step,
        signal_rtt_ms=0,
    )


def _summary(place: Place) -> NatSummary:
    return summarize(NatBehavior(ipv4=place.ipv4))


def _ice_works(own: Place, other: Place) -> bool:
    ends = [_summary(place) for place in (own, other)]
    try:
        check_udp(*ends)
    except TransportError:
        return False
    return endpoints_meet(ends[0].udp, ends[1].udp)
