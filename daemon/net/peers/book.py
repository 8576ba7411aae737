"""The other peers that are known: a session for each, and what looks for paths to it.

Invariants:

- A record of a peer that is not admitted leaves no trace here: nobody is dialled, called or
  remembered for it (:meth:`PeerBook.add` is the one way in).
- There are at most ``view.most``. A record that this peer only heard of replaces only another
  such record, once that was tried for a while. A peer that this one has talked to gives way to a
  peer that comes by itself, and never to a record.
- In a partial view (daemon/net/view.py) those who are not wanted give way to those who are,
  live or not, and never the other way round. Who is not wanted and comes by itself gets in as long
  as there is room, and is forgotten soon after it has gone.
- A stranger that connects costs at most one question to the rendezvous, and all strangers together
  a few each second; those of one address fewer still.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from daemon.net.paths.path import PathSeeker, PathWish
from daemon.net.peers.remote_peer import RemotePeer
from daemon.net.refusals import Refusals
from daemon.net.session.handshake import BusyError
from daemon.net.view import View
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId, short
from protocol.peers.hello import VerifiedHello
from protocol.peers.session_frames import CloseCode
from protocol.statements.admission import AdmissionBook, DeniedError
from protocol.statements.peer_record import NO_INSTANCE, VerifiedRecord
from transport.address import source_of
from transport.clock import Clock
from transport.rate_limit import Allowed, Rate, RateLimiter

FIND_RECORD_S = 2.8
"""Below the 3 s that ZAP waits, so that the answer is a plain no."""
UNKNOWN_KEY_S = 5.0
"""How long a key that nobody knew is not asked about again."""
MAX_UNKNOWN_KEYS = 256
MAX_SEARCHES_PER_S = 10
"""A stranger that comes with a new key each time must not make this peer flood the rendezvous."""
_SEARCHES_FROM_ONE = Rate(burst=4.0, per_s=1.0, patience=0)
"""Nor leave no question for others: this much from one network."""
MAX_NETWORKS = 1024
SEEK_AGAIN_S = 30.0
"""A seeker that something unexpected has ended begins anew after this time."""
TRIED_S = 30.0
"""How long a peer that never answered keeps its place. Several attempts fit in."""

_log = logging.getLogger("p2pd.peers")


def _are_of_two(one: bytes, other: bytes) -> bool:
    """Whether they are the instances of two processes, as far as both are known."""
    return NO_INSTANCE not in (one, other) and one != other


class LinkMaker(Protocol):
    """What the book gives each peer, and whom it asks."""

    async def find_record(self, curve_key: bytes) -> VerifiedRecord | None:
        """The record with a CURVE key that is not in the book, if anybody has it."""

    def make_link(self, record: VerifiedRecord) -> RemotePeer:
        """A session with it."""

    def make_seekers(self, wish: PathWish) -> tuple[PathSeeker, ...]:
        """What looks for paths to it: one for each kind, all at the same time."""


class PeerBook:
    """An async context manager: within it, paths are looked for.

    Example (daemon/net/network.py)::

        await stack.enter_async_context(self._book)
        is_heard = self._book.hear(record, "")
        link = self._book.get(peer_id)
    """

    def __init__(
        self,
        own_id: PeerId,
        swarm_id: bytes,
        clock: Clock,
        admission: AdmissionBook,
        refusals: Refusals,
        maker: LinkMaker,
        view: View,
    ) -> None:
        """``admission`` decides who may be in the book, and ``view`` who is wanted in it."""
        self._own_id = own_id
        self._swarm_id = swarm_id
        self._clock = clock
        self._maker = maker
        self._view = view
        self._admission = admission
        self._refusals = refusals
        self._links: dict[PeerId, RemotePeer] = {}
        self._seeking: dict[PeerId, list[asyncio.Task[None]]] = {}
        self._unwanted: set[PeerId] = set()
        """Removed, and not gone so far."""
        self._departed: dict[PeerId, int] = {}
        """The records' sequence of those who left in good order. The rendezvous may not know that;
        and their keys are let in, so that they can come back where there is none."""
        self._unknown_keys: dict[bytes, float] = {}
        self._searches: deque[float] = deque(maxlen=MAX_SEARCHES_PER_S)
        self._searches_from = RateLimiter(_SEARCHES_FROM_ONE, capacity=MAX_NETWORKS)
        self._tasks = asyncio.TaskGroup()
        self._is_ending = False
        self._is_closed = False

    async def __aenter__(self) -> "PeerBook":
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        # Nobody would end what is begun from here on: peers and servers still have their say.
        self._is_ending = True
        for peer_id in list(self._seeking):
            self._stop_seeking(peer_id)
        await self._tasks.__aexit__(None, None, None)

    def __iter__(self) -> Iterator[RemotePeer]:
        return iter(list(self._links.values()))

    def get(self, peer_id: PeerId | None) -> RemotePeer | None:
        """The link to a known peer."""
        return None if peer_id is None else self._links.get(peer_id)

    def add(self, record: VerifiedRecord) -> None:
        """Look for paths to this peer from now on; of several records the newest counts.

        Raises :class:`DeniedError` for a peer that is not admitted, and :class:`BusyError` when
        there are too many already, or this peer stops.
        """
        self._add(record, is_here=False)

    def close(self, reason: str) -> None:
        """Let all peers go, and nobody in any more."""
        self._is_closed = True
        for link in list(self._links.values()):
            # Not that this peer leaves: to the others its identity may be somebody else by now.
            link.end_session(CloseCode.PATH, reason, in_good_order=True)
            self._forget(link)

    def knows(self, peer_id: PeerId) -> bool:
        """Whether it is in the book."""
        return peer_id in self._links

    def hear(self, record: VerifiedRecord, seen_at: str) -> bool:
        """Add ``record`` as :meth:`add` does; False where that raises. ``seen_at``: the IP address
        from which a rendezvous saw the peer just now; empty: none did."""
        try:
            self.add(record)
        except (BusyError, DeniedError) as error:
            _log.debug("record of %s: %s", short(record.peer_id), error)
            return False
        link = self._links.get(record.peer_id)
        if link is not None and seen_at:
            link.wish.note_seen(seen_at, self._clock.monotonic())
        return True

    def welcome(self, record: VerifiedRecord) -> None:
        """Add a peer that says hello now: so it is here, even if it had left before. Raises as
        :meth:`add`."""
        self._departed.pop(record.peer_id, None)
        self._add(record, is_here=True)

    def _add(self, record: VerifiedRecord, *, is_here: bool) -> None:
        if self._is_ending:
            raise BusyError("this peer stops")
        if self._is_closed:
            raise BusyError("this peer takes no part")
        peer_id = record.peer_id
        if peer_id == self._own_id or record.swarm != self._swarm_id:
            return
        self._admission.check(peer_id, record.record.proof, now_ms=self._clock.expiry_ms())
        if record.sequence <= self._departed.get(peer_id, -1):
            return
        self._departed.pop(peer_id, None)
        self._unwanted.discard(peer_id)
        link = self._links.get(peer_id)
        if link is None:
            self._make_room(peer_id, is_here=is_here)
            link = self._links[peer_id] = self._maker.make_link(record)
        elif record.sequence > link.record.sequence:
            link.record = record
        elif _are_of_two(record.record.instance, link.record.record.instance):
            if link.is_live:
                raise DeniedError(
                    f"denied: another daemon with the identity of {peer_id} started later; only one"
                    " of the two can take part, stop the other one"
                )
            if is_here:  # The later one is gone.
                link.record = record
        if peer_id not in self._seeking:
            self._seeking[peer_id] = [
                self._tasks.create_task(self._seek(peer_id, seeker))
                for seeker in self._maker.make_seekers(link.wish)
            ]

    # Who may say hello (Doorkeeper)

    def admit(self, hello: VerifiedHello) -> RemotePeer:
        """See :class:`Doorkeeper`: the link of a peer that may take part."""
        now_ms = self._clock.expiry_ms()
        self._admission.check(hello.peer_id, hello.record.record.proof, now_ms=now_ms)
        self.welcome(hello.record)
        link = self._links.get(hello.peer_id)
        if link is None or link.is_held_off:
            raise RemoteProtocolError("it broke the protocol a moment ago")
        return link

    def met(self, hello: VerifiedHello) -> None:
        """See :class:`Doorkeeper`. The peer is there now and shows its invite itself."""
        self._admission.meet(hello.peer_id, hello.record.record.proof, now_ms=self._clock.now_ms())

    def session_of(self, peer_id: PeerId) -> RemotePeer | None:
        """See :class:`Doorkeeper`."""
        return self._links.get(peer_id)

    def left(self, peer_id: PeerId) -> None:
        """The peer has said that it goes: forget all but its record, and do not look for it until
        it has a new one, or comes by itself."""
        link = self._links.get(peer_id)
        if link is not None:
            self._departed[peer_id] = link.record.sequence
            self._stop_seeking(peer_id)
            link.close()
            self._links[peer_id] = self._maker.make_link(link.record)
            self._links[peer_id].was_met = link.was_met

    def has_left(self, peer_id: PeerId) -> bool:
        """Whether it went in good order and was not heard of since."""
        return peer_id in self._departed

    def remove(self, peer_id: PeerId) -> None:
        """Forget it, once it is not live; until then the session with it goes on."""
        self._unwanted.add(peer_id)
        self.drop_if_unwanted(peer_id)

    def drop_if_unwanted(self, peer_id: PeerId) -> None:
        """Forget a peer that was removed, or is none that this one looks for, if it is not live."""
        link = self._links.get(peer_id)
        is_unwanted = peer_id in self._unwanted or not self._view.wants(peer_id)
        if is_unwanted and (link is None or not link.is_live):
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
        if self._is_closed:
            return False
        if self.record_for_curve_key(curve_key) is not None:
            return True
        now = self._clock.monotonic()
        if self._unknown_keys.get(curve_key, now) > now or not self._may_search(remote_ip, now):
            return False
        try:
            async with asyncio.timeout(FIND_RECORD_S):
                record = await self._maker.find_record(curve_key)
            if record is not None:
                self.add(record)
        except TimeoutError:
            _log.debug("nobody says whose the key of %s is", remote_ip or "a call at a relay")
        except (BusyError, DeniedError) as error:
            _log.info("connection from %s not let in: %s", remote_ip or "a relay", error)
        if self.record_for_curve_key(curve_key) is not None:
            return True
        if len(self._unknown_keys) >= MAX_UNKNOWN_KEYS:
            del self._unknown_keys[next(iter(self._unknown_keys))]
        self._unknown_keys[curve_key] = self._clock.monotonic() + UNKNOWN_KEY_S
        return False

    async def who_has(self, curve_key: bytes) -> PeerId | None:
        """The peer with this key, looked up like a key that connects."""
        if not await self.admit_key(curve_key, ""):
            return None
        record = self.record_for_curve_key(curve_key)
        return None if record is None else record.peer_id

    def _may_search(self, remote_ip: str, now: float) -> bool:
        origin = source_of(remote_ip) if remote_ip else ""
        if len(self._searches) == MAX_SEARCHES_PER_S and self._searches[0] > now - 1.0:
            return False
        if not isinstance(self._searches_from.take(origin, 1.0, now), Allowed):
            return False
        self._searches.append(now)
        return True

    def tidy(self) -> None:
        """End the sessions that this peer needs no more, and forget who came by itself and went."""
        now = self._clock.monotonic()
        for peer_id in self._view.let_go(now):
            link = self._links.get(peer_id)
            if link is not None:
                self._part_from(link, "this peer needs no session with it any more")
        for link in self._unwanted_links():
            if not link.is_live and now >= link.known_since + TRIED_S:
                self._forget(link)

    def _make_room(self, peer_id: PeerId, *, is_here: bool) -> None:
        """Forget somebody to make room for a peer that ``is_here``, or that was only heard of."""
        if len(self._links) < self._view.most:
            return
        now = self._clock.monotonic()
        is_wanted = self._view.wants(peer_id)
        unwanted = self._unwanted_links()
        away = [link for link in self._links.values() if not link.is_live]
        if not is_wanted:
            away = [link for link in away if link in unwanted]
        never_met = [link for link in away if not link.was_met]
        if is_wanted and unwanted:
            may_go = unwanted
        elif is_here:
            may_go = never_met or away
        else:
            may_go = [link for link in never_met if now >= link.known_since + TRIED_S]
        if not may_go:
            raise BusyError(f"{self._view.most} peers are known already")
        # One with a session may come back and go on with it.
        link = min(may_go, key=lambda link: (link.is_live, link.has_session, link.known_since))
        _log.info("peer %s is forgotten, there are too many", short(link.peer_id))
        self._part_from(link, "there are too many peers here")

    def _unwanted_links(self) -> list[RemotePeer]:
        return [link for link in self._links.values() if not self._view.wants(link.peer_id)]

    def _part_from(self, link: RemotePeer, reason: str) -> None:
        link.end_session(CloseCode.UNNEEDED, reason, in_good_order=True)
        if self.knows(link.peer_id):  # It is forgotten as it ends, if it was live.
            self._forget(link)

    async def _seek(self, peer_id: PeerId, seeker: PathSeeker) -> None:
        """Run ``seeker`` until cancelled. Nothing that a peer says or answers ends it for good."""
        while True:
            with self._refusals.border(peer_id, "path"):
                await seeker.run()
            await asyncio.sleep(SEEK_AGAIN_S)

    def _stop_seeking(self, peer_id: PeerId) -> None:
        for task in self._seeking.pop(peer_id, []):
            task.cancel()

    def _forget(self, link: RemotePeer) -> None:
        del self._links[link.peer_id]
        self._departed.pop(link.peer_id, None)
        link.close()
        self._stop_seeking(link.peer_id)
