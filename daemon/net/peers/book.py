"""The other peers that are known: a link for each, and what looks for paths to it.

At most :data:`MAX_PEERS`: when there are more, one that is not live gives way to a new one.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator

from daemon.net.paths.path import PathSeeker, PathWish
from daemon.net.peers.remote_peer import PeerLink
from daemon.net.session.handshake import BusyError
from protocol.admission import DeniedError
from protocol.identity import PeerId, short
from protocol.peer_record import VerifiedRecord
from transport.clock import Clock

MAX_PEERS = 64
FIND_RECORD_S = 2.8
"""Below the 3 s that ZAP waits, so that the answer is a plain no."""
UNKNOWN_KEY_S = 5.0
"""For so long a key that nobody knew is not asked about again."""
MAX_UNKNOWN_KEYS = 256
MAX_SEARCHES_PER_S = 10
"""A stranger that comes with a new key each time must not make this peer flood the rendezvous."""

FindRecord = Callable[[bytes], Awaitable[VerifiedRecord | None]]

_log = logging.getLogger("p2pd.peers")


async def find_nothing(curve_key: bytes) -> VerifiedRecord | None:
    """Nobody to ask."""
    return None


class PeerBook:
    """An async context manager: within it, paths are looked for."""

    def __init__(
        self,
        own_id: PeerId,
        swarm_id: bytes,
        clock: Clock,
        *,
        make_link: Callable[[VerifiedRecord], PeerLink],
        make_seekers: Callable[[PathWish], tuple[PathSeeker, ...]],
        is_banned: Callable[[PeerId], bool],
    ) -> None:
        self.find_record: FindRecord = find_nothing
        self._own_id = own_id
        self._swarm_id = swarm_id
        self._clock = clock
        self._make_link = make_link
        self._make_seekers = make_seekers
        self._is_banned = is_banned
        self._links: dict[PeerId, PeerLink] = {}
        self._seeking: dict[PeerId, list[asyncio.Task[None]]] = {}
        self._unwanted: set[PeerId] = set()
        """Removed, and not gone so far."""
        self._departed: dict[PeerId, int] = {}
        """The records' sequence of those who left in good order. The rendezvous may not know that;
        and their keys are let in, so that they can come back where there is none."""
        self._unknown_keys: dict[bytes, float] = {}
        self._searches: deque[float] = deque(maxlen=MAX_SEARCHES_PER_S)
        self._tasks = asyncio.TaskGroup()
        self._is_ending = False

    async def __aenter__(self) -> "PeerBook":
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        # Nobody would end what is begun from here on: peers and servers still have their say.
        self._is_ending = True
        for peer_id in list(self._seeking):
            self._stop_seeking(peer_id)
        await self._tasks.__aexit__(None, None, None)

    def __iter__(self) -> Iterator[PeerLink]:
        return iter(list(self._links.values()))

    def get(self, peer_id: PeerId | None) -> PeerLink | None:
        """The link to a known peer."""
        return None if peer_id is None else self._links.get(peer_id)

    def add(self, record: VerifiedRecord) -> None:
        """Look for paths to this peer from now on; of several records the newest counts.

        Raises :class:`DeniedError` for a banned peer, and :class:`BusyError` when there are too
        many already, or this peer stops.
        """
        if self._is_ending:
            raise BusyError("this peer stops")
        peer_id = record.peer_id
        if peer_id == self._own_id or record.swarm != self._swarm_id:
            return
        if self._is_banned(peer_id):
            raise DeniedError(f"denied: {peer_id} was banned by the swarm's founder")
        if record.sequence <= self._departed.get(peer_id, -1):
            return
        self._departed.pop(peer_id, None)
        self._unwanted.discard(peer_id)
        link = self._links.get(peer_id)
        if link is None:
            self._make_room()
            link = self._links[peer_id] = self._make_link(record)
        elif record.sequence > link.record.sequence:
            link.record = record
        if peer_id not in self._seeking:
            self._seeking[peer_id] = [
                self._tasks.create_task(seeker.run()) for seeker in self._make_seekers(link.wish)
            ]

    def welcome(self, record: VerifiedRecord) -> None:
        """The same for a peer that says hello now: then it is here, even if it had left before."""
        self._departed.pop(record.peer_id, None)
        self.add(record)

    def left(self, peer_id: PeerId) -> None:
        """The peer has said that it goes: forget all but its record, and do not look for it until
        it has a new one, or comes by itself."""
        link = self._links.get(peer_id)
        if link is not None:
            self._departed[peer_id] = link.record.sequence
            self._stop_seeking(peer_id)
            link.close()
            self._links[peer_id] = self._make_link(link.record)

    def has_left(self, peer_id: PeerId) -> bool:
        """Whether it went in good order and was not heard of since."""
        return peer_id in self._departed

    def remove(self, peer_id: PeerId) -> None:
        """Forget it, once it is not live; until then the session with it goes on."""
        self._unwanted.add(peer_id)
        self.drop_if_unwanted(peer_id)

    def drop_if_unwanted(self, peer_id: PeerId) -> None:
        """Forget a peer that was removed, if it is not live."""
        link = self._links.get(peer_id)
        if peer_id in self._unwanted and (link is None or not link.is_live):
            self._unwanted.discard(peer_id)
            if link is not None:
                self._forget(link)

    def record_for_curve_key(self, curve_key: bytes) -> VerifiedRecord | None:
        """The record of a known peer that names this key."""
        for link in self._links.values():
            if link.record.record.curve_key == curve_key:
                return link.record
        return None

    async def admit_key(self, curve_key: bytes, remote_ip: str) -> bool:
        """Whether a key is some peer's of the swarm: what ZAP asks for each new connection."""
        if self.record_for_curve_key(curve_key) is not None:
            return True
        now = self._clock.monotonic()
        if self._unknown_keys.get(curve_key, now) > now or not self._may_search(now):
            return False
        try:
            async with asyncio.timeout(FIND_RECORD_S):
                record = await self.find_record(curve_key)
            if record is not None:
                self.add(record)
        except TimeoutError:
            _log.debug("nobody says whose the key of %s is", remote_ip)
        except (BusyError, DeniedError) as error:
            _log.info("connection from %s not let in: %s", remote_ip, error)
        if self.record_for_curve_key(curve_key) is not None:
            return True
        if len(self._unknown_keys) >= MAX_UNKNOWN_KEYS:
            del self._unknown_keys[next(iter(self._unknown_keys))]
        self._unknown_keys[curve_key] = self._clock.monotonic() + UNKNOWN_KEY_S
        return False

    async def who_has(self, curve_key: bytes) -> PeerId | None:
        """The peer with this key, looked up like a key that connects."""
        if not await self.admit_key(curve_key, "a relay"):
            return None
        record = self.record_for_curve_key(curve_key)
        return None if record is None else record.peer_id

    def _may_search(self, now: float) -> bool:
        if len(self._searches) == MAX_SEARCHES_PER_S and self._searches[0] > now - 1.0:
            return False
        self._searches.append(now)
        return True

    def _make_room(self) -> None:
        if len(self._links) < MAX_PEERS:
            return
        away = [link for link in self._links.values() if not link.is_live]
        if not away:
            raise BusyError(f"{MAX_PEERS} peers are connected already")
        # One with a session may come back and go on with it.
        link = min(away, key=lambda link: link.has_session)
        _log.info("peer %s is forgotten, there are too many", short(link.peer_id))
        self._forget(link)

    def _stop_seeking(self, peer_id: PeerId) -> None:
        for task in self._seeking.pop(peer_id, []):
            task.cancel()

    def _forget(self, link: PeerLink) -> None:
        del self._links[link.peer_id]
        self._departed.pop(link.peer_id, None)
        link.close()
        self._stop_seeking(link.peer_id)
