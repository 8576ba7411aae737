"""A server's page: how many peers and swarms it has, what it passes on, what it refused.

It names no peer, and no address but the server's own.
"""

import time

import msgspec

from daemon.control.status import SCHEMA
from daemon.host.version import VERSION
from daemon.web.metrics.server import ServerNumbers
from daemon.web.site import SHARED, Site
from protocol.uri import ServerUri

STATIC = SHARED | {
    "/": ("server.html", "text/html"),
    "/server.js": ("server.js", "text/javascript"),
}


class RendezvousNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """How the rendezvous does."""

    peers: int
    """Announced now."""
    swarms: int
    """Whose statement is kept."""
    troubles: dict[str, int]
    """What was refused, dropped, cut off or failed since the start, by reason."""


class RelayNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """How the relay does."""

    peers: int
    """Connected to it now."""
    links: int
    """Pairs of peers that it connects now."""
    forwarded_bytes: int
    """Passed on since the start."""
    unread_bytes: int
    """What may lie in it now."""
    troubles: dict[str, int]
    """What was dropped, refused, closed, throttled or cut off since the start, by reason."""


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """All that a server's page shows."""

    schema: int = SCHEMA
    version: str
    role: str
    uri: str
    uptime_s: float
    rendezvous: RendezvousNumbers | None = None
    relay: RelayNumbers | None = None


class ServerPage(Site):
    """Serves a server's page from :meth:`start` on, while the ``async with`` block runs.

    Example (daemon/server.py)::

        page = await stack.enter_async_context(ServerPage(numbers, options.role, uri))
    """

    def __init__(self, numbers: ServerNumbers, role: str, uri: ServerUri) -> None:
        super().__init__(STATIC, self, "'p2pd web --state-dir DIR' prints the right one")
        self._numbers = numbers
        self._role = role
        self._uri = str(uri)
        self._started_at = time.monotonic()

    def state(self, after: int) -> bytes:
        """All that the page shows; a server has no rounds."""
        return msgspec.json.encode(self.now())

    def metrics(self) -> str:
        """The server's numbers."""
        return self._numbers.metrics()

    def now(self) -> ServerState:
        """The numbers as they are."""
        return ServerState(
            version=VERSION,
            role=self._role,
            uri=self._uri,
            uptime_s=time.monotonic() - self._started_at,
            rendezvous=self._rendezvous(),
            relay=self._relay(),
        )

    def _rendezvous(self) -> RendezvousNumbers | None:
        registry, service = self._numbers.registry, self._numbers.rendezvous
        if registry is None or service is None:
            return None
        return RendezvousNumbers(
            peers=registry.lease_count,
            swarms=registry.statement_count,
            troubles=dict(sorted(service.statistics().items())),
        )

    def _relay(self) -> RelayNumbers | None:
        if self._numbers.relay is None:
            return None
        now = self._numbers.relay.statistics()
        return RelayNumbers(
            peers=now.peers,
            links=now.links,
            forwarded_bytes=now.forwarded_bytes,
            unread_bytes=now.unread_bytes,
            troubles=dict(sorted(now.troubles.items())),
        )
