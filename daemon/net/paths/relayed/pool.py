"""The relays that this peer is on: a client for each that the swarm statement names.

A relay is its key: several URIs with one key are several addresses of one relay. It is connected
to all the time, so that others can call this peer there, and so that another relay is at hand when
one fails.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence

from daemon.net.paths.maker import PathParts
from daemon.net.paths.path import PathWish
from daemon.net.paths.relayed.path import RelayPath
from protocol.errors import ConfigError
from protocol.identity import PeerId
from protocol.statements.peer_record import MAX_RELAY_URIS, MAX_RELAYS
from protocol.uri import HostPort, ServerUri
from relay.client.client import IncomingCall, RelayClient, RelayState
from relay.client.link import RelayLink
from transport.error_group import first_error

_log = logging.getLogger("p2pd.relays")


def relays_of(uris: Iterable[str]) -> dict[bytes, tuple[ServerUri, ...]]:
    """The relays that a statement or a record names, by key; at most as many as a record may."""
    found: dict[bytes, tuple[ServerUri, ...]] = {}
    for text in uris:
        try:
            uri = ServerUri.parse(text)
        except ConfigError as error:
            _log.warning("a relay of the swarm cannot be used: %s", error)
            continue
        known = found.get(uri.key, ())
        if len(known) < MAX_RELAY_URIS // MAX_RELAYS and (known or len(found) < MAX_RELAYS):
            found[uri.key] = (*known, uri)
    return found


class RelayPool:
    """An async context manager; the relays may be replaced within it."""

    def __init__(self, parts: PathParts) -> None:
        self._parts = parts
        self._clients: dict[bytes, RelayClient] = {}
        self._ends: dict[bytes, asyncio.Event] = {}
        self._uris: dict[bytes, tuple[ServerUri, ...]] = {}
        self._wishes: list[PathWish] = []
        self._tasks: asyncio.TaskGroup | None = None

    async def __aenter__(self) -> "RelayPool":
        tasks = asyncio.TaskGroup()
        await tasks.__aenter__()
        self._tasks = tasks
        uris, self._uris = self._uris, {}
        self.replace(uris)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._tasks is not None
        tasks, self._tasks = self._tasks, None
        for end in self._ends.values():
            end.set()
        try:
            await tasks.__aexit__(None, None, None)
        except ExceptionGroup as group:
            raise first_error(group) from group

    def replace(self, uris: dict[bytes, tuple[ServerUri, ...]]) -> None:
        """Be on these relays from now on; links over others end."""
        gone = [key for key in self._uris if uris.get(key) != self._uris[key]]
        new = [key for key in uris if uris[key] != self._uris.get(key)]
        self._uris = dict(uris)
        for key in gone:
            if key in self._ends:
                self._ends.pop(key).set()
                self._clients.pop(key, None)
        if self._tasks is not None:
            for key in new:
                end = self._ends[key] = asyncio.Event()
                self._tasks.create_task(self._serve(key, uris[key], end))
        self._wake_up()

    @property
    def uris(self) -> tuple[ServerUri, ...]:
        """The URIs of the relays that this peer is on, or tries to be on."""
        return tuple(uri for uris in self._uris.values() for uri in uris)

    def clients(self, keys: Iterable[bytes] = ()) -> list[RelayClient]:
        """The clients for these relays, as far as this peer is on them; without any, all."""
        chosen = [self._clients[key] for key in keys if key in self._clients]
        return chosen or [self._clients[key] for key in self._uris if key in self._clients]

    def watch(self, wish: PathWish) -> None:
        """Wake up who waits for something of ``wish`` when a relay's state changes, too, or
        there are others."""
        self._wishes.append(wish)

    def unwatch(self, wish: PathWish) -> None:
        """Undo :meth:`watch`."""
        self._wishes.remove(wish)

    async def _serve(self, key: bytes, uris: Sequence[ServerUri], end: asyncio.Event) -> None:
        client = RelayClient(
            uris[0],
            self._parts.identity,
            self._parts.curve,
            self,
            also_at=tuple(uri.address for uri in uris[1:]),
            random=self._parts.random,
        )
        async with client:
            if not end.is_set():
                self._clients[key] = client
            await end.wait()

    # What the relays tell (RelayUser)

    async def who_calls(self, call: IncomingCall) -> PeerId | None:
        """See :class:`RelayUser`."""
        if call.swarm != self._parts.swarm_id:
            return None
        return await self._parts.peers.who_has(call.curve_key)

    def link_opened(self, link: RelayLink, relay: HostPort) -> None:
        """See :class:`RelayUser`."""
        RelayPath(link, relay, self._parts.owner).open()

    def state_changed(self, state: RelayState) -> None:
        """See :class:`RelayUser`."""
        self._wake_up()

    def _wake_up(self) -> None:
        for wish in self._wishes:
            wish.notify()
