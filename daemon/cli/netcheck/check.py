"""The whole check: everything is asked at the same time, and takes bounded time.

About 3 s where all answers; at most the 5 s of a rendezvous that does not, and the 6 s of STUN
servers that do not.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daemon.cli.netcheck.expected_path import Place, expect
from daemon.cli.netcheck.peer_places import PEER_PLACES, WITH_IPV6
from daemon.cli.netcheck.report import ExpectedPath, MappingReport, NetReport, ServerReport
from daemon.cli.netcheck.servers import RendezvousFinding, ask_relay, ask_rendezvous
from daemon.cli.netcheck.stun import Silence, StunFinding, ask_stun, is_elsewhere
from daemon.control import health
from daemon.control.status import HealthItem
from daemon.net.nat.network_state import NetworkState, read_network_state
from daemon.net.nat.port_mapping.trial import try_mapping
from daemon.net.path_kind import PathKind
from protocol.errors import TransportError
from protocol.statements.nat_behavior import WEB_PORTS
from protocol.statements.nat_summary import describe, summarize
from protocol.uri import HostPort, ServerUri, by_server
from transport.address import is_local


@dataclass(frozen=True, slots=True)
class NetcheckOptions:
    """What to ask."""

    rendezvous: tuple[ServerUri, ...] = ()
    relays: tuple[ServerUri, ...] = ()
    """Relays besides those that come with a rendezvous."""
    stun_servers: tuple[HostPort, ...] = ()
    """STUN servers besides those on the hosts of the rendezvous."""
    map_port: bool = True
    """Whether the router may be asked to pass a port on, for a moment."""


async def check_network(
    options: NetcheckOptions,
    *,
    leads_out: Callable[[HostPort, NetworkState], bool] = is_elsewhere,
) -> NetReport:
    """Find out, and never raise for what the network does. ``leads_out``: which STUN servers are
    of use, for being elsewhere than on this machine."""
    state = read_network_state()
    async with asyncio.TaskGroup() as tasks:
        mapping = tasks.create_task(_try_mapping(state)) if options.map_port else None
        findings = await _ask_all(options.rendezvous)
        relays = [*options.relays, *(uri for finding in findings for uri in finding.relays)]
        asked = [tasks.create_task(ask_relay(uris)) for uris in by_server(dict.fromkeys(relays))]
        beside = [server for finding in findings for server in finding.stun_servers]
        stun = await ask_stun(
            tuple(dict.fromkeys([*beside, *options.stun_servers])), state, leads_out=leads_out
        )
    return _report(
        options,
        state,
        stun,
        tuple(finding.report for finding in findings),
        tuple(task.result() for task in asked),
        None if mapping is None else mapping.result(),
        is_stun_there=bool(beside),
    )


async def _ask_all(uris: Sequence[ServerUri]) -> list[RendezvousFinding]:
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask_rendezvous(of_one)) for of_one in by_server(uris)]
    return [task.result() for task in asked]


async def _try_mapping(state: NetworkState) -> MappingReport:
    try:
        mapping = await try_mapping(state.gateway_ipv4)
    except TransportError as error:
        return MappingReport(available=False, reason=str(error))
    return MappingReport(available=True, method=mapping.method, external_host=mapping.external.host)


def _report(
    options: NetcheckOptions,
    state: NetworkState,
    stun: StunFinding,
    rendezvous: tuple[ServerReport, ...],
    relays: tuple[ServerReport, ...],
    mapping: MappingReport | None,
    *,
    is_stun_there: bool,
) -> NetReport:
    """``is_stun_there``: a rendezvous answered and has STUN, so that silence is the network's."""
    behavior = stun.behavior
    ipv4, ipv6 = behavior.ipv4, behavior.ipv6
    public_ipv4 = ipv4.udp.public_host or ipv4.tcp.public_host
    own = Place(
        ipv4,
        is_mapped=mapping is not None and _leads_out(mapping, public_ipv4),
        ipv6=_global_ipv6(state),
    )
    can_expect = stun.silence is not Silence.ON_THIS_MACHINE and (
        behavior.reachable or any(server.reachable for server in rendezvous)
    )
    udp: bool | None = ipv4.udp.reachable or ipv6.udp.reachable
    is_swallowed = stun.silence is Silence.NO_ANSWER and is_stun_there
    if not behavior.reachable and not is_swallowed:
        udp = None
    return NetReport(
        udp=udp,
        udp_reason=_why_unknown(stun, rendezvous) if udp is None else "",
        public_ipv4=public_ipv4,
        public_ipv6=ipv6.udp.public_host or ipv6.tcp.public_host,
        nat=behavior,
        nat_in_words=describe(summarize(behavior)),
        port_mapping=mapping,
        rendezvous=rendezvous,
        relays=relays,
        stun_servers=tuple(map(str, stun.servers)),
        expected=_expectations(own, has_relay=any(relay.reachable for relay in relays))
        if can_expect
        else (),
        health=tuple(_trouble(options, stun, rendezvous, relays)),
    )


def _why_unknown(stun: StunFinding, rendezvous: Sequence[ServerReport]) -> str:
    if (
        stun.silence is Silence.NONE_NAMED
        and rendezvous
        and not any(server.reachable for server in rendezvous)
    ):
        return f"{stun.why_silent}, as the rendezvous does not answer"
    return stun.why_silent


def _leads_out(mapping: MappingReport, public_host: str) -> bool:
    """Whether a port that the router maps is one of the Internet's: else it is behind another."""
    host = mapping.external_host
    if not mapping.available or not host or is_local(host):
        return False
    return public_host in ("", host)


def _global_ipv6(state: NetworkState) -> tuple[str, ...]:
    return tuple(
        sorted(address for address in state.addresses if ":" in address and not is_local(address))
    )


def _expectations(own: Place, *, has_relay: bool) -> tuple[ExpectedPath, ...]:
    found = []
    for other in (*PEER_PLACES, WITH_IPV6) if own.ipv6 else PEER_PLACES:
        expectation = expect(own, other.place)
        lacks_relay = expectation.kind is PathKind.RELAY and not has_relay
        found.append(
            ExpectedPath(
                other=other.code,
                description=other.text,
                path=expectation.kind,
                reason=expectation.how + (", and no relay is known" if lacks_relay else ""),
            )
        )
    return tuple(found)


def _trouble(
    options: NetcheckOptions,
    stun: StunFinding,
    rendezvous: Sequence[ServerReport],
    relays: Sequence[ServerReport],
) -> list[HealthItem]:
    families = (stun.behavior.ipv4, stun.behavior.ipv6)
    has_udp = any(family.udp.reachable for family in families)
    on_web_port = {uri.key for uri in options.rendezvous if uri.address.port in WEB_PORTS}
    found = [
        health.rendezvous_out_of_reach(
            server.uri,
            server.reason,
            on_web_port=ServerUri.parse(server.uri).key in on_web_port,
        )
        for server in rendezvous
        if not server.reachable
    ]
    found += [
        health.relay_unreachable(server.uri, server.reason)
        for server in relays
        if not server.reachable
    ]
    if stun.failures:
        found.append(health.stun_unresolved(stun.failures))
    match stun.silence:
        case None if not has_udp:
            found.append(health.udp_blocked())
        case Silence.NO_ANSWER:
            found.append(health.stun_unreachable())
        case Silence.NONE_NAMED if not found:
            found.append(health.stun_unnamed(stun.why_silent))
    return found
