"""What a session knows of its paths: how good each is, when it was last heard, its round trip."""

from collections.abc import Iterator
from dataclasses import dataclass, field

HEARTBEAT_S = 1.0
"""How often a session says that it lives, and asks each path for its round trip: in one go, so that
either side is woken once."""
PATH_SILENT_S = 3.0
"""A path that was silent for so long is not used while there is another."""
PATH_FAILED_S = 10.0
"""A path that was silent for so long is given up."""
_MAX_PINGS = 16


@dataclass(slots=True)
class AttachedPath:
    """One path of a session, from its confirmed hello to its end."""

    path_id: int
    score: float
    heard_at: float
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

    def take_ping(self, now: float) -> int:
        """The number of a ping that is sent now."""
        self.is_ping_due = False
        self._last_ping += 1
        self._pings[self._last_ping] = now
        if len(self._pings) > _MAX_PINGS:
            del self._pings[next(iter(self._pings))]
        return self._last_ping

    def receive_pong(self, number: int, now: float) -> None:
        """Measure the round trip; an answer to no ping of this side's is ignored."""
        sent_at = self._pings.pop(number, None)
        if sent_at is None:
            return
        rtt_s = now - sent_at
        self.rtt_s = rtt_s if self.rtt_s is None else 0.75 * self.rtt_s + 0.25 * rtt_s


class PathSet:
    """The paths of a session, and the active one: the usable one of highest score.

    Among equals the active one stays, so that nothing goes back and forth.
    """

    def __init__(self) -> None:
        self._paths: dict[int, AttachedPath] = {}
        self.active: AttachedPath | None = None

    def __iter__(self) -> Iterator[AttachedPath]:
        return iter(self._paths.values())

    @property
    def is_empty(self) -> bool:
        """Whether there is none, not even a silent one."""
        return not self._paths

    def get(self, path_id: int) -> AttachedPath | None:
        """The path, unless it is gone."""
        return self._paths.get(path_id)

    def add(self, path_id: int, *, score: float, now: float) -> None:
        """A path that was just heard."""
        self._paths[path_id] = AttachedPath(path_id, score, heard_at=now)

    def remove(self, path_id: int) -> bool:
        """Forget a path; False if it was gone already."""
        return self._paths.pop(path_id, None) is not None

    def choose(self, now: float) -> bool:
        """Make the best usable path the active one; whether that changed anything."""
        usable = [path for path in self if path.is_usable(now)]
        best = max(usable, key=lambda path: (path.score, path is self.active), default=None)
        changed = best is not self.active
        self.active = best
        return changed

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
        # While a path is active its silence is still to be noticed, even if it began before now.
        return min(
            (
                path.heard_at + (PATH_SILENT_S if path is self.active else PATH_FAILED_S)
                for path in self
            ),
            default=None,
        )

    def restart_clocks(self, now: float) -> None:
        """The silence until now was this process's own."""
        for path in self:
            path.heard_at = now
