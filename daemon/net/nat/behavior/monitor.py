"""Keeps the knowledge of the network's NAT current for as long as the daemon runs."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from daemon.net.nat.behavior.discover import discover_behavior
from daemon.net.nat.network_change import NetworkWatcher
from daemon.net.nat.network_state import NetworkState
from daemon.net.nat.stun.binding import Binding
from daemon.net.nat.stun.udp import UdpBindings
from protocol.errors import TransportError
from protocol.statements.nat_behavior import NatBehavior
from protocol.uri import HostPort

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 20.0
"""A rebooted NAT tells nobody; this is how long it can go unnoticed. Short enough to keep the
mapping alive too, so that only a change of the NAT's changes it."""
REPEAT_INTERVAL_S = 1800.0
SILENT_REPEAT_INTERVAL_S = 120.0
"""When to ask again where no server answered. Over TCP nothing else shows that they are back."""

Discover = Callable[[Sequence[HostPort]], Awaitable[NatBehavior]]


class NatReader(Protocol):
    """Who is told what the monitor finds."""

    def behavior_found(self, behavior: NatBehavior) -> None:
        """A discovery ended, perhaps with what was known."""

    def network_changed(self, state: NetworkState) -> None:
        """Addresses or gateways changed; a discovery follows."""


class NatMonitor:
    """Discovers the NAT's behaviour at the start, after each change, and every half an hour.

    A changed address or gateway is noticed at once; a NAT that rebooted, a changed public address
    or a cut that healed by a Binding request over UDP every ``check_interval_s``. Where UDP is
    blocked these show in the TCP connections that break.

    Example (daemon/net/nat/whereabouts.py)::

        self._monitor = NatMonitor((), self)
        tasks.create_task(self._monitor.run())
        self._monitor.discover_again(now.endpoints)
    """

    def __init__(
        self,
        servers: Sequence[HostPort],
        reader: NatReader,
        *,
        check_interval_s: float = CHECK_INTERVAL_S,
        repeat_interval_s: float = REPEAT_INTERVAL_S,
        discover: Discover = discover_behavior,
    ) -> None:
        """``servers``: IP endpoints."""
        self._servers = tuple(servers)
        self._reader = reader
        self._check_interval_s = check_interval_s
        self._repeat_interval_s = repeat_interval_s
        self._discover = discover
        self._wanted = asyncio.Event()
        self.behavior: NatBehavior | None = None
        """The result of the last discovery; None until the first one has ended."""
        self.asked: tuple[HostPort, ...] = ()
        """The servers that were asked for it."""

    def discover_again(self, servers: Sequence[HostPort] | None = None) -> None:
        """Start a discovery now, from now on with other servers if any are given."""
        if servers is not None:
            self._servers = tuple(servers)
        self._wanted.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        with NetworkWatcher(self._network_changed):
            while True:
                self._wanted.clear()
                servers = self._servers
                self.behavior, self.asked = await self._discover(servers), servers
                self._reader.behavior_found(self.behavior)
                await self._wait_for_change()

    def _network_changed(self, state: NetworkState) -> None:
        self._reader.network_changed(state)
        self._wanted.set()

    async def _wait_for_change(self) -> None:
        ipv6 = [server for server in self._servers if ":" in server.host]
        ipv4 = [server for server in self._servers if ":" not in server.host]
        repeat_s = self._repeat_interval_s
        if self._servers and self.behavior is not None and not self.behavior.reachable:
            repeat_s = min(repeat_s, SILENT_REPEAT_INTERVAL_S)
        async with asyncio.TaskGroup() as group:
            checks = [
                group.create_task(self._check_mapping(family, servers))
                for family, servers in ((socket.AF_INET, ipv4), (socket.AF_INET6, ipv6))
                if servers
            ]
            try:
                async with asyncio.timeout(repeat_s):
                    await self._wanted.wait()
            except TimeoutError:
                log.debug("NAT behaviour: looking again, though nothing seems to have changed")
            for check in checks:
                check.cancel()

    async def _check_mapping(
        self, family: socket.AddressFamily, servers: Sequence[HostPort]
    ) -> None:
        """Want a discovery when one socket's mapping changes or an answer comes after a silence."""
        try:
            udp = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            log.debug("no mapping to watch: %s", error)
            return
        with udp, UdpBindings(udp) as bindings:
            known: Binding | None = None
            was_silent = was_seen_again = False
            while True:
                try:
                    # Always the same server: towards another the mapping may be another.
                    asked = [known.server] if known else servers
                    binding = await bindings.bind_any(asked)
                except TransportError as error:
                    log.debug("%s", error)
                    known, was_silent = None, True
                else:
                    moved = known is not None and known.mapped.host != binding.mapped.host
                    changed = known is not None and known.mapped != binding.mapped
                    # Some NATs forget a mapping before it is asked again. There another port is no
                    # news, as it is where the port had stayed before.
                    if was_silent or moved or (changed and was_seen_again):
                        log.info("the NAT's mapping changed: now %s", binding.mapped)
                        self._wanted.set()
                    was_seen_again = known is not None and not changed
                    known, was_silent = binding, False
                await asyncio.sleep(self._check_interval_s)
