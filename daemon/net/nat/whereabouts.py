"""What this peer knows of its own place in the network, and keeps true while it runs.

STUN servers, the NAT's behaviour, the machine's addresses, the port that the router maps, the
public endpoint of the port listened on: from these follow the addresses and the NAT summary in the
peer's record, and how paths are punched.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from daemon.net.nat.behavior.monitor import NatMonitor
from daemon.net.nat.behavior.openness import Openness, openness
from daemon.net.nat.network_state import NetworkState, read_network_state
from daemon.net.nat.own_addresses import own_addresses
from daemon.net.nat.port_mapping.mapper import PortMapper
from daemon.net.nat.stun.kept_mapping import KeptMapping
from daemon.net.nat.stun.resolve import ResolvedServers, resolve_servers
from protocol.statements.nat_behavior import NatBehavior, TransportBehavior
from protocol.statements.nat_summary import NatSummary, describe, summarize
from protocol.uri import HostPort
from transport.address import is_local

LOOK_UP_AGAIN_S = 30.0
"""While a STUN server's name leads nowhere, or none answers."""

_log = logging.getLogger("p2pd.network")


class Outpost(Protocol):
    """A server out there that sees this peer: a rendezvous, through its client."""

    @property
    def stun_servers(self) -> Sequence[HostPort]:
        """The endpoints at which its host answers STUN."""

    @property
    def observed_address(self) -> str | None:
        """The IP address at which it sees this peer; None when it cannot tell."""


class WhereaboutsReader(Protocol):
    """Who is told where this peer is."""

    def whereabouts_changed(self) -> None:
        """:attr:`Whereabouts.addresses` or :attr:`Whereabouts.nat` are others than before."""

    def moved(self, *, connections_lost: bool) -> None:
        """This machine came into another network; are connections made before lost?"""


class Whereabouts:
    """This peer's place in the network.

    Run ``run`` as a task; before, only the machine's own addresses are known.

    Example (daemon/net/connectivity.py)::

        self.whereabouts = Whereabouts(clients, stun_servers, self)
        network.describe_nat(self.whereabouts.nat)
        network.advertise(self.whereabouts.addresses)
    """

    def __init__(
        self,
        outposts: Sequence[Outpost],
        other_stun_servers: Sequence[HostPort],
        reader: WhereaboutsReader,
        *,
        look_up_again_s: float = LOOK_UP_AGAIN_S,
    ) -> None:
        """``outposts`` may still grow."""
        self._outposts = outposts
        self._other_stun_servers = tuple(other_stun_servers)
        self._reader = reader
        self._state = read_network_state()
        self._look_up_again_s = look_up_again_s
        self._named_servers: tuple[HostPort, ...] = ()
        self._resolved = ResolvedServers({}, {})
        self._servers_changed = asyncio.Event()
        self._monitor = NatMonitor((), self)
        self._listen: HostPort | None = None
        self._mapper: PortMapper | None = None
        self._kept: KeptMapping | None = None
        self._said: tuple[tuple[str, ...], NatSummary] | None = None
        self.stun_servers: tuple[HostPort, ...] = ()
        """IPv4 endpoints; those on the hosts of the rendezvous come first."""

    async def run(self, listen: HostPort, *, map_port: bool) -> None:
        """Find out, and keep it true; until cancelled.

        ``listen``: the address listened on, with the real port; ``map_port``: whether to ask the
        router to let others reach it.
        """
        self._listen = listen
        self._kept = KeptMapping(listen.port, lambda mapped: self._tell_if_changed())
        self._tell_if_changed()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._monitor.run())
            tasks.create_task(self._kept.run())
            tasks.create_task(self._follow_servers())
            if map_port:
                self._mapper = PortMapper(listen.port, lambda mapping: self._tell_if_changed())
                tasks.create_task(self._mapper.run())

    def outposts_changed(self) -> None:
        """An outpost said something of itself or of this peer that may be new."""
        self._servers_changed.set()
        self._tell_if_changed()

    @property
    def addresses(self) -> tuple[str, ...]:
        """``HOST:PORT`` under which this peer may be dialled, the likeliest to work first."""
        if self._listen is None:
            return ()
        mapping = None if self._mapper is None else self._mapper.mapping
        mapped = []
        if mapping is not None and mapping.external.host and not is_local(mapping.external.host):
            mapped.append(mapping.external)  # Else the router is behind another one.
        if self._kept is not None and self._kept.mapped is not None:
            mapped.append(self._kept.mapped)
        seen_at = [outpost.observed_address for outpost in self._outposts]
        return own_addresses(self._state, seen_at, self._listen, mapped=mapped)

    @property
    def host_addresses(self) -> tuple[str, ...]:
        """The machine's own IP addresses, without loopback and link-local ones."""
        return tuple(sorted(self._state.addresses))

    @property
    def behavior(self) -> NatBehavior:
        """What the NAT does, as far as it was found out."""
        return self._monitor.behavior or NatBehavior()

    @property
    def tcp_behavior(self) -> TransportBehavior:
        """What the NAT does with TCP over IPv4."""
        return self.behavior.ipv4.tcp

    @property
    def nat(self) -> NatSummary:
        """The part of it that this peer tells others."""
        return summarize(self.behavior)

    @property
    def nat_in_words(self) -> str:
        """What the NAT does, as text for people."""
        return describe(self.nat)

    @property
    def unresolved_servers(self) -> str:
        """Text for people: the STUN servers whose names lead nowhere, and why; empty while there is
        one that can be asked, or that was heard."""
        if self.behavior.reachable or self._resolved.endpoints:
            return ""
        return self._resolved.failures_in_words

    @property
    def is_stun_silent(self) -> bool:
        """Whether all STUN servers were asked, over UDP and TCP, and none answered."""
        endpoints = self._resolved.endpoints
        has_asked_all = bool(endpoints) and self._monitor.asked == endpoints
        return has_asked_all and not self.behavior.reachable

    # What the parts tell

    async def _follow_servers(self) -> None:
        while True:
            self._servers_changed.clear()
            beside = [server for outpost in self._outposts for server in outpost.stun_servers]
            named = tuple(dict.fromkeys([*beside, *self._other_stun_servers]))
            is_heard = self.behavior.reachable
            if named != self._named_servers or not is_heard or self._resolved.failures:
                self._named_servers = named
                # Some names lead to another address each time: where one tells, it is stayed with.
                known = self._resolved.found if is_heard else {}
                self._take_resolved(
                    await resolve_servers(server for server in named if server not in known)
                )
            try:
                async with asyncio.timeout(self._look_up_again_s):
                    await self._servers_changed.wait()
            except TimeoutError:
                continue  # A name may lead somewhere by now.

    def _take_resolved(self, newer: ResolvedServers) -> None:
        before = self._resolved
        now = self._resolved = before.updated(newer, self._named_servers)
        for server, reason in now.failures.items():
            if server not in before.failures:
                _log.warning("STUN server %s cannot be asked: %s", server, reason)
        for server in before.failures:
            if server in now.found:
                _log.info("STUN server %s can be asked now", server)
        if now.endpoints != before.endpoints:
            self.stun_servers = tuple(one for one in now.endpoints if ":" not in one.host)
            self._monitor.discover_again(now.endpoints)

    def behavior_found(self, behavior: NatBehavior) -> None:
        """See :class:`NatReader`."""
        udp, tcp = behavior.ipv4.udp, behavior.ipv4.tcp
        if udp.reachable or tcp.reachable:
            _log.info("own NAT: %s", self.nat_in_words)
        is_mapped = bool(tcp.translated) and openness(behavior.ipv4) is not Openness.CLOSED
        if self._kept is not None:
            self._kept.keep(self.stun_servers if is_mapped else ())
        said = self._said
        if said is not None and said[1].public_host not in ("", self.nat.public_host):
            self._reader.moved(connections_lost=False)
        self._tell_if_changed()

    def network_changed(self, state: NetworkState) -> None:
        """See :class:`NatReader`."""
        before, self._state = self._state, state
        connections_lost = (
            not before.addresses <= state.addresses
            or before.gateway_ipv4 != state.gateway_ipv4
            or before.gateway_ipv6 != state.gateway_ipv6
        )
        if self._mapper is not None:
            self._mapper.network_changed()
        self._servers_changed.set()  # Another network's DNS may know other names.
        self._tell_if_changed()
        self._reader.moved(connections_lost=connections_lost)

    def _tell_if_changed(self) -> None:
        now = self.addresses, self.nat
        if now != self._said:
            self._said = now
            self._reader.whereabouts_changed()
