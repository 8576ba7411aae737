"""Keeps the NAT's mapping of a port that this machine listens on.

Behind a NAT with endpoint-independent mapping *and* filtering, whoever knows the mapping can dial
it. STUN over TCP from that very port makes it and, on a connection that stays open, keeps it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from daemon.net.nat.stun.tcp import TcpBinding
from protocol.errors import TransportError
from protocol.uri import HostPort
from transport.backoff import Backoff

CHECK_INTERVAL_S = 15.0
"""A NAT that rebooted tells nobody."""
FIRST_RETRY_S = 2.0
LONGEST_RETRY_S = 60.0

_ANY_IPV4 = "0.0.0.0"

_log = logging.getLogger(__name__)


class KeptMapping:
    """The public endpoint of a port, kept for as long as :meth:`run` runs and servers are given.

    Example (daemon/net/nat/whereabouts.py)::

        self._kept = KeptMapping(listen.port, lambda mapped: self._tell_if_changed())
        tasks.create_task(self._kept.run())
        self._kept.keep(self.stun_servers if is_mapped else ())
    """

    def __init__(self, port: int, on_change: Callable[[HostPort | None], None]) -> None:
        """``port``: somebody listens on it and lets it be shared (SO_REUSEPORT). ``on_change``
        hears of each new endpoint, and None when there is none any more."""
        self._port = port
        self._on_change = on_change
        self._servers: tuple[HostPort, ...] = ()
        self._wanted = asyncio.Event()
        self.mapped: HostPort | None = None

    def keep(self, servers: Sequence[HostPort]) -> None:
        """Keep it by these STUN servers (IPv4 endpoints) from now on, and look at it now; none: do
        not keep it."""
        self._servers = tuple(servers)
        self._wanted.set()

    async def run(self) -> None:
        """Keep it until cancelled."""
        backoff = Backoff(FIRST_RETRY_S, LONGEST_RETRY_S)
        while True:
            self._wanted.clear()
            if not self._servers:
                self._set(None)
                await self._wanted.wait()
                continue
            try:
                await self._hold()
                backoff.reset()
            except TransportError as error:
                _log.debug("mapping of the listening port: %s", error)
                self._set(None)
                await self._wait(backoff.next_s())

    async def _hold(self) -> None:
        """Return when other servers are to be used. Raises :class:`TransportError` when it is
        lost."""
        opened, binding = await TcpBinding.open_any(self._servers, HostPort(_ANY_IPV4, self._port))
        servers = self._servers
        try:
            self._set(binding.mapped)
            while self._servers == servers:
                await self._wait(CHECK_INTERVAL_S)
                self._wanted.clear()
                await opened.ask()
        finally:
            opened.close()

    async def _wait(self, longest_s: float) -> None:
        try:
            async with asyncio.timeout(longest_s):
                await self._wanted.wait()
        except TimeoutError:
            pass  # Waited long enough.

    def _set(self, mapped: HostPort | None) -> None:
        if mapped != self.mapped:
            self.mapped = mapped
            _log.info("mapping of the listening port: %s", mapped or "none any more")
            self._on_change(mapped)
