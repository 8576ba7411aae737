"""What a session knows of its paths: how good each is, when it was last heard, its round trip."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from protocol.peers.lane_messages import MAX_LANES

HEARTBEAT_S = 1.0
"""How often a session says that it lives, and asks each path for its round trip: in one go, so that
either side is woken once."""
PATH_SILENT_S = 3.0
"""A path that was silent for so long is not used while there is another."""
PATH_FAILED_S = 10.0
"""A path that was silent for so long is given up."""
BEHIND_S = 1.0
"""A lane whose ping is unanswered for so long gets no more bulk while there are better ones: it is
slow or stuck, and what waits in it is waited for by all."""
LONG_BEHIND_S = 3.0
"""If all others are so much behind, the lane that is left to control carries bulk too."""
CONTROL_LANE_FROM = 4
"""With so many lanes one is left to control and acknowledgements: they wait behind no bulk then."""
_MAX_PINGS = 16


@dataclass(slots=True)
class AttachedPath:
    """One path of a session, from its confirmed hello to its end."""

    path_id: int
    score: float
    heard_at: float
    kind: object = None
    """Paths that have the same are used together; None: this one is used alone."""
    is_ping_due: bool = True
    rtt_s: float | None = None
    """Smoothed round trip of pings, which wait in the path's queues like everything else."""
    blocked_until: float = 0.0
    """The path did not take a frame; not before then is the next one offered."""
    _last_ping: int = 0
    _pings: dict[int, float] = field(default_factory=dict)
    """When the unanswered ones were sent."""

    def is_usable(self, now: float) -> bool:
        """Whether frames may be entrusted to it."""
        return now < self.heard_at + PATH_SILENT_S

    def has_failed(self, now: float) -> bool:
        """Whether it has been silent for so long that it is to be given up."""
        return now >= self.heard_at + PATH_FAILED_S

    def is_behind(self, now: float, by_s: float = BEHIND_S) -> bool:
        """Whether a ping, and whatever went before it, has been on its way for so long."""
        return bool(self._pings) and now > min(self._pings.values()) + by_s

    def take_ping(self, now: float) -> int:
        """The number of a ping that is sent now."""
        self.is_ping_due = False
        self._last_ping += 1
        self._pings[self._last_ping] = now
        if len(self._pings) > _MAX_PINGS:
            del self._pings[next(iter(self._pings))]
        return self._last_ping

    def refuse(self, until: float, ping: int | None) -> None:
        """The path did not take a frame, which may have been that ping."""
        self.blocked_until = until
        if ping is not None:
            self._pings.pop(ping, None)

    def receive_pong(self, number: int, now: float) -> float | None:
        """Measure the round trip; when the ping was sent. None for an answer to no ping of this
        side's."""
        sent_at = self._pings.pop(number, None)
        if sent_at is None:
            return None
        # Those before it were lost with their answers: nothing overtakes on a path.
        self._pings = {other: at for other, at in self._pings.items() if other > number}
        rtt_s = now - sent_at
        self.rtt_s = rtt_s if self.rtt_s is None else 0.75 * self.rtt_s + 0.25 * rtt_s
        return sent_at


class PathSet:
    """The paths of a session, and the active one: the usable one of highest score.

    Among equals the active one stays, so that nothing goes back and forth. Bulk goes over it and
    others of its kind: the lanes, the active one first.
    """

    def __init__(self) -> None:
        self._paths: dict[int, AttachedPath] = {}
        self.lanes: tuple[AttachedPath, ...] = ()
        self.most_for_bulk = MAX_LANES
        """So many of the lanes carry bulk at most, the newest ones."""

    @property
    def active(self) -> AttachedPath | None:
        """The first of them, over which all goes that is no bulk, unless it is behind."""
        return self.lanes[0] if self.lanes else None

    def __iter__(self) -> Iterator[AttachedPath]:
        return iter(self._paths.values())

    @property
    def is_empty(self) -> bool:
        """Whether there is none, not even a silent one."""
        return not self._paths

    def get(self, path_id: int) -> AttachedPath | None:
        """The path, unless it is gone."""
        return self._paths.get(path_id)

    def add(self, path_id: int, *, score: float, kind: object, now: float) -> None:
        """A path that was just heard."""
        self._paths[path_id] = AttachedPath(path_id, score, heard_at=now, kind=kind)

    def remove(self, path_id: int) -> bool:
        """Forget a path; False if it was gone already."""
        return self._paths.pop(path_id, None) is not None

    def choose(self, now: float) -> bool:
        """Make the best usable path the active one; whether that changed anything."""
        usable = [path for path in self if path.is_usable(now)]
        best = max(usable, key=lambda path: (path.score, path is self.active), default=None)
        beside = [
            path
            for path in usable
            if best is not None
            and path is not best
            and path.kind is not None
            and path.kind == best.kind
        ]
        lanes = () if best is None else (best, *beside)[:MAX_LANES]
        # By identity: a path of the same number may be another one.
        changed = list(map(id, lanes)) != list(map(id, self.lanes))
        self.lanes = lanes
        return changed

    def for_control(self, now: float) -> AttachedPath:
        """The lane for control and acknowledgements, of those that there are."""
        return _prompt(self.lanes, now)[0]

    def for_bulk(self, now: float) -> Sequence[AttachedPath]:
        """The lanes for bulk, of those that there are. Of many, one is left to control."""
        count = min(len(self.lanes), self.most_for_bulk)
        if count < CONTROL_LANE_FROM:
            lanes = _newest(self.lanes, count)
        else:
            control = self.for_control(now)
            others = [lane for lane in self.lanes if lane is not control]
            lanes = _newest(others, count - 1)
            if not control.is_behind(now) and all(
                lane.is_behind(now, LONG_BEHIND_S) for lane in lanes
            ):
                return (control,)
        return _prompt(lanes, now)

    def ping_all(self) -> None:
        """Have each path asked now, the silent ones too."""
        for path in self:
            path.is_ping_due = True

    def take_due_ping(self, now: float) -> tuple[int, int] | None:
        """Path and number of a ping to be sent now."""
        for path in self:
            if path.is_ping_due:
                return path.path_id, path.take_ping(now)
        return None

    def next_change_at(self) -> float | None:
        """When something is to be done about a path, if nothing is heard by then."""
        # While a path is in use its silence is still to be noticed, even if it began before now.
        return min(
            (
                path.heard_at
                + (PATH_SILENT_S if any(path is lane for lane in self.lanes) else PATH_FAILED_S)
                for path in self
            ),
            default=None,
        )

    def restart_clocks(self, now: float) -> None:
        """The silence until now was this process's own."""
        for path in self:
            path.heard_at = now


def _newest(lanes: Sequence[AttachedPath], count: int) -> Sequence[AttachedPath]:
    """In the order in which they are."""
    if count >= len(lanes):
        return lanes
    first = sorted(lane.path_id for lane in lanes)[-count]
    return [lane for lane in lanes if lane.path_id >= first]


def _prompt(lanes: Sequence[AttachedPath], now: float) -> Sequence[AttachedPath]:
    """Those of them that are not behind; all of them if all are."""
    return [lane for lane in lanes if not lane.is_behind(now)] or lanes
