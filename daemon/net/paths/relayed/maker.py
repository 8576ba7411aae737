"""Relay paths for a peer's network: a pool of relays, and a seeker for each peer."""

from types import TracebackType

from daemon.net.paths.maker import PathParts
from daemon.net.paths.path import PathWish
from daemon.net.paths.relayed.pool import RelayPool, relays_of
from daemon.net.paths.relayed.seeker import RelaySeeker
from protocol.uri import ServerUri
from relay.client.client import RelayClient


class RelayPaths:
    """What makes relay paths (:class:`PathMaker`).

    Example (daemon/net/network.py)::

        self._relays = RelayPaths(parts, admission.swarm.statement.relays)
        self._relays.replace_relays(swarm.statement.relays)
    """

    def __init__(self, parts: PathParts, uris: tuple[str, ...]) -> None:
        """``uris`` are the swarm's relays."""
        self._parts = parts
        self._pool = RelayPool(parts)
        self._pool.replace(relays_of(uris))

    async def __aenter__(self) -> "RelayPaths":
        await self._pool.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._pool.__aexit__(kind, error, traceback)

    @property
    def uris(self) -> tuple[ServerUri, ...]:
        """Where this peer can be called."""
        return self._pool.uris

    def clients(self) -> list[RelayClient]:
        """The relays, to be shown."""
        return self._pool.clients()

    def replace_relays(self, uris: tuple[str, ...]) -> None:
        """The swarm has other relays from now on."""
        self._pool.replace(relays_of(uris))

    def seeker(self, wish: PathWish) -> RelaySeeker:
        """See :class:`PathMaker`."""
        return RelaySeeker(self._parts, self._pool, wish)
