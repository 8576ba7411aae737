"""How many paths of one kind two peers use together: as many as one of them wants."""

import logging
from dataclasses import dataclass, field

from daemon.net.path_kind import PathKind
from daemon.net.paths.path import PathWish
from daemon.net.peers.lane_trial import Arrived, LaneTrial
from daemon.net.traffic import TrafficCounter
from protocol.identity import short
from protocol.peers.lane_messages import MAX_LANES, LaneKind, LanesWanted

KINDS = {PathKind(kind.value): kind for kind in LaneKind}
"""Those that go between the two machines alone, each over a connection of the kernel's."""
KEPT_S = 600.0
"""What a peer asked for is forgotten unless it asks again."""
REPEAT_S = 240.0
"""How often a peer asks again."""
UNUSED_S = 60.0
"""A kind that was not the one in use for so long needs no more than one path."""
NOTE_S = 0.45

_log = logging.getLogger("p2pd.link")


@dataclass(slots=True)
class _OfKind:
    trial: LaneTrial = field(default_factory=LaneTrial)
    told: int = 1
    """What this side wants, as the other one knows."""
    told_at: float = 0.0
    asked: int = 1
    """What the other side wants."""
    asked_at: float = 0.0
    used_at: float = 0.0


def lane_kind(kind: PathKind) -> PathKind | None:
    """By which the session knows what to use together; None: paths of that kind are used alone."""
    return kind if kind in KINDS else None


class Lanes:
    """Sets the wish's lanes, by which seekers make paths. Begun anew with each session."""

    def __init__(self, wish: PathWish, traffic: TrafficCounter) -> None:
        """``traffic``: with all peers."""
        self._wish = wish
        self._traffic = traffic
        self._kinds = {kind: _OfKind() for kind in KINDS}
        self.begin_anew()

    def begin_anew(self) -> None:
        """Another session: neither side wants more than one path. What this one found out about
        the line stays."""
        for one in self._kinds.values():
            one.trial.rest()
        self._kinds = {kind: _OfKind(one.trial) for kind, one in self._kinds.items()}
        self._arrived_bytes = 0
        self.next_note_at = 0.0
        """When :meth:`note` acts again."""
        self._heeded_at = 0.0
        self._wish.lanes.clear()
        self._traffic.busy.discard(self._wish.record.peer_id)

    def ask(self, wanted: LanesWanted, now: float) -> None:
        """The other side wants so many. However often it asks, this one acts on it no more often
        than each :data:`NOTE_S`."""
        one = self._kinds[PathKind(wanted.kind.value)]
        one.asked, one.asked_at = min(MAX_LANES, wanted.count), now
        if now >= self._heeded_at + NOTE_S:
            self._heeded_at = now
            self._set_wish()

    def note(
        self, kind: PathKind | None, arrived_bytes: int, *, is_busy: bool, count: int, now: float
    ) -> LanesWanted | None:
        """Call it often; each :data:`NOTE_S` it acts, see :meth:`LaneTrial.note`. ``kind`` is the
        one in use, None if that may change at any moment, ``arrived_bytes`` in this session so far.
        The result is what is to be said to the other side, if anything."""
        if now < self.next_note_at:
            return None
        self.next_note_at = now + NOTE_S
        self._count(arrived_bytes, is_busy=is_busy)
        used = None if kind is None else self._kinds.get(kind)
        if used is not None:
            used.used_at = now
            rivals = len(self._traffic.busy - {self._wish.record.peer_id})
            arrived = Arrived(arrived_bytes, self._traffic.arrived, rivals)
            used.trial.note(arrived, is_busy=is_busy, count=count, now=now)
        for one in self._kinds.values():
            if now >= one.used_at + UNUSED_S:
                one.trial.rest()
            if now >= one.asked_at + KEPT_S:
                one.asked = 1
        self._set_wish()
        return self._news(now)

    def bulk_lanes(self, kind: PathKind | None) -> int:
        """How many of the paths of ``kind`` carry bulk, however many there are."""
        one = None if kind is None else self._kinds.get(kind)
        return MAX_LANES if one is None else one.trial.bulk_lanes

    def said(self, news: LanesWanted, now: float) -> None:
        """The other side is told that, and this one acts on it."""
        one = self._kinds[PathKind(news.kind.value)]
        if news.count != one.told:
            peer, count = short(self._wish.record.peer_id), news.count
            what = "one connection is enough" if count == 1 else f"up to {count} connections"
            _log.info("peer %s: %s, %s", peer, news.kind.value, what)
        one.told, one.told_at = news.count, now
        self._set_wish()

    def _set_wish(self) -> None:
        self._wish.lanes = {kind: max(one.asked, one.told) for kind, one in self._kinds.items()}
        if any(map(self._wish.lacks_lane, self._kinds)):
            self._wish.notify()

    def _news(self, now: float) -> LanesWanted | None:
        for kind, one in self._kinds.items():
            wanted = one.trial.wanted
            if wanted != one.told or (wanted > 1 and now >= one.told_at + REPEAT_S):
                return LanesWanted(wanted, KINDS[kind])
        return None

    def _count(self, arrived_bytes: int, *, is_busy: bool) -> None:
        self._traffic.arrived += arrived_bytes - self._arrived_bytes
        self._arrived_bytes = arrived_bytes
        if is_busy:
            self._traffic.busy.add(self._wish.record.peer_id)
        else:
            self._traffic.busy.discard(self._wish.record.peer_id)
