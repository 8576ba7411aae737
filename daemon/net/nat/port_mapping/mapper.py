"""Keeps a port of this machine's reachable through the router, by whichever protocol it speaks."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from daemon.net.nat.behavior.probe import Transport
from daemon.net.nat.network_state import read_network_state
from daemon.net.nat.port_mapping.gateway import NatPmpMethod, PcpMethod
from daemon.net.nat.port_mapping.request import MappingMethod, MappingRequest, PortMapping
from protocol.errors import TransportError
from protocol.uri import HostPort
from transport.backoff import Backoff

log = logging.getLogger(__name__)

LIFETIME_S = 1800
RENEWAL_S = 300.0
"""Long before the lifetime ends: a router that restarted has forgotten the mapping and tells
nobody, and a renewal makes it anew."""
MIN_RENEWAL_S = 20.0
FIRST_RETRY_S = 60.0
LAST_RETRY_S = 1800.0
REMOVAL_TIMEOUT_S = 2.0


class Router:
    """The router that is to be asked: that of the IPv4 default route."""

    def find_gateway(self) -> str | None:
        """Its address now."""
        return read_network_state().gateway_ipv4

    def methods(self, gateway: str) -> Sequence[MappingMethod]:
        """The ways to ask it, the cheapest first."""
        # Only now: a peer whose machine has no router never needs it.
        from daemon.net.nat.port_mapping.upnp import UpnpMethod

        return (
            PcpMethod(gateway),
            NatPmpMethod(gateway),
            UpnpMethod(gateway, choose=random.SystemRandom()),
        )


class PortMapper:
    """Maps one port, renews it while :meth:`run` runs, and takes it back when that is cancelled.

    Example (daemon/net/nat/whereabouts.py)::

        self._mapper = PortMapper(listen.port, lambda mapping: self._tell_if_changed())
        tasks.create_task(self._mapper.run())
    """

    def __init__(
        self,
        internal_port: int,
        on_change: Callable[[PortMapping | None], None],
        *,
        transport: Transport = Transport.TCP,
        router: Router | None = None,
        lifetime_s: int = LIFETIME_S,
        renewal_s: float = RENEWAL_S,
        first_retry_s: float = FIRST_RETRY_S,
    ) -> None:
        """``on_change`` hears of each new mapping, and None when there is none any more."""
        self._internal_port = internal_port
        self._on_change = on_change
        self._transport = transport
        self._router = router or Router()
        self._lifetime_s = lifetime_s
        self._renewal_s = renewal_s
        self._first_retry_s = first_retry_s
        self._gateway: str | None = None
        self._methods: list[MappingMethod] = []
        self._asked: tuple[MappingMethod, MappingRequest] | None = None
        """Who was asked last, unless that failed."""
        self._network_changed = asyncio.Event()
        self.mapping: PortMapping | None = None
        self.failure = "not tried yet"
        """Why there is no mapping, in words; empty while there is one."""

    def network_changed(self) -> None:
        """Look for the router again, now."""
        self._network_changed.set()

    async def run(self) -> None:
        """Map and renew until cancelled."""
        backoff = Backoff(self._first_retry_s, LAST_RETRY_S)
        try:
            while True:
                self._network_changed.clear()
                await self._map()
                if self.mapping is not None:
                    backoff.reset()
                    wait_s = self._renewal_in(self.mapping)
                else:
                    wait_s = backoff.next_s()
                try:
                    async with asyncio.timeout(wait_s):
                        await self._network_changed.wait()
                except TimeoutError:
                    continue
                backoff.reset()
        finally:
            await self._unmap()

    def _renewal_in(self, mapping: PortMapping) -> float:
        wait_s = self._renewal_s
        if mapping.lifetime_s:
            wait_s = min(wait_s, max(mapping.lifetime_s / 2, MIN_RENEWAL_S))
        return wait_s

    async def _map(self) -> None:
        gateway = self._router.find_gateway()
        if gateway != self._gateway:
            # The former router's mapping is out of reach now; its lease ends by itself.
            self._gateway, self._asked = gateway, None
            self._methods = list(self._router.methods(gateway)) if gateway else []
            self._set(None, "")
        failures = []
        for method in self._methods:
            request = MappingRequest(
                transport=self._transport,
                internal_port=self._internal_port,
                external_port=self.mapping.external.port if self.mapping else self._internal_port,
                lifetime_s=self._lifetime_s,
            )
            self._asked = method, request
            try:
                mapping = await method.map_port(request)
            except TransportError as error:
                log.debug("port mapping: %s", error)
                self._asked = None
                failures.append(str(error))
                continue
            # The one that works is asked first from now on.
            self._methods.remove(method)
            self._methods.insert(0, method)
            self._set(mapping, "")
            return
        self._set(None, "; ".join(failures) or "no IPv4 default gateway")

    def _set(self, mapping: PortMapping | None, failure: str) -> None:
        self.failure = failure
        before, self.mapping = self.mapping, mapping
        if mapping is None:
            if before is None:
                return
            log.info("port mapping: none any more")
        elif before and (before.method, before.external) == (mapping.method, mapping.external):
            return  # Renewed, for however long.
        else:
            log.info("port mapping: %s by %s", mapping.external, mapping.method)
        self._on_change(mapping)

    async def _unmap(self) -> None:
        if self._asked is None:
            return
        method, request = self._asked
        # Cancelled between question and answer, the router may have made a mapping all the same.
        mapping = self.mapping or PortMapping(
            method="asked for",
            transport=request.transport,
            internal_port=request.internal_port,
            external=HostPort("", request.external_port),
            lifetime_s=request.lifetime_s,
        )
        try:
            async with asyncio.timeout(REMOVAL_TIMEOUT_S):
                await method.unmap_port(mapping)
        except (TransportError, TimeoutError) as error:
            log.info("port mapping: not taken back (%s); it ends by itself", error)
        self._set(None, "stopped")
