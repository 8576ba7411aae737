"""Whether the relay carries more than a better kind of path does, found out by trying.

Congestion control over UDP gives up most of the line where some packets are lost (0.4 MB/s at 40 ms
and 1 %), while the TCP connections to a relay keep it (19 MB/s). Between two hosts TCP does as well
as over a relay, unless the route between just these two is bad, full or throttled. What is faster
shows only when there is much to send: then, if a path is slow, the relay is tried for a moment, and
kept if it is clearly better. A relay is everybody's, and a trial costs what is sent again: so a
path over TCP has to carry next to nothing before, and the relay much more. Sans-IO. Each side
decides for what it sends.
"""

import enum
from collections.abc import Collection
from dataclasses import dataclass

from daemon.net.path_kind import PathKind
from daemon.net.peers.path_score import BEST_FIRST

SPAN_S = 2.0
"""A rate is what was sent in so long a time with more waiting all the while."""
SETTLE_S = 1.0
"""Right after a switch what was in flight on the other path is sent again."""
ASK_S = 15.0
"""A relay path that is not there by then will not be."""
KEEP_S = 600.0
FIRST_INTERVAL_S = 60.0
LONGEST_INTERVAL_S = 1800.0


@dataclass(frozen=True, slots=True)
class Limit:
    """For a kind of path."""

    slow_bytes_s: float
    """A faster one is left alone."""
    gain: float
    """So many times as much the relay has to carry."""


_TCP = Limit(slow_bytes_s=0.2e6, gain=3.0)
LIMITS = {
    PathKind.DIRECT: _TCP,
    PathKind.PUNCHED: _TCP,
    PathKind.ICE: Limit(slow_bytes_s=4e6, gain=1.25),
}


class Stage(enum.Enum):
    """WATCHING → (ASKING →) TRYING → KEEPING → WATCHING; from each back to WATCHING."""

    WATCHING = enum.auto()
    ASKING = enum.auto()
    """The path is slow, and there is no path over a relay to compare it with."""
    TRYING = enum.auto()
    KEEPING = enum.auto()


class RateTrial:
    """Of one peer's paths. ``now`` is monotonic seconds."""

    def __init__(self) -> None:
        self.stage = Stage.WATCHING
        self._slow_kind = PathKind.ICE
        """What the relay is compared with."""
        self._rate_to_beat = 0.0
        self._until = 0.0
        """The end of asking, or of keeping."""
        self._next_trial_at = 0.0
        self._interval_s = FIRST_INTERVAL_S
        self._kind: PathKind | None = None
        self._span_from = 0.0
        self._span_bytes = 0
        self._switched_at = 0.0
        self._switch_bytes = 0

    @property
    def needs_relay(self) -> bool:
        """Whether there has to be a path over a relay, whatever others there are."""
        return self.stage is not Stage.WATCHING

    @property
    def relay_beats(self) -> PathKind | None:
        """The kind to which the relay is preferred now, as it is to those that are worse."""
        return self._slow_kind if self.stage in (Stage.TRYING, Stage.KEEPING) else None

    def note(
        self,
        kind: PathKind | None,
        sent_bytes: int,
        *,
        is_busy: bool,
        available: Collection[PathKind],
        now: float,
    ) -> None:
        """To be told every second or so: the path in use and how much was sent over it in all,
        whether more waits than it takes, and the kinds of path that there are."""
        has_relay = PathKind.RELAY in available
        better = BEST_FIRST[: BEST_FIRST.index(self._slow_kind)]
        if any(one in available for one in better) or (self.relay_beats and not has_relay):
            self._stop(now)
        drained_rate = self._drained_rate(kind, sent_bytes, is_busy=is_busy, now=now)
        rate = self._rate(kind, sent_bytes, is_busy=is_busy, now=now)
        match self.stage:
            case Stage.WATCHING if rate is not None and kind in LIMITS:
                self._judge_path(kind, rate, now)
            case Stage.ASKING if not is_busy or now >= self._until:
                self._stop(now)
            case Stage.TRYING if drained_rate is not None:
                self._judge_relay(drained_rate, now)
            case Stage.TRYING if not is_busy:
                self._stop(now)
            case Stage.TRYING if rate is not None and kind is PathKind.RELAY:
                self._judge_relay(rate, now)
            case Stage.KEEPING if rate is not None and now >= self._until:
                self.stage = Stage.WATCHING  # The path may be better by now.
        if self.stage is Stage.ASKING and has_relay:
            self.stage = Stage.TRYING

    def _rate(
        self, kind: PathKind | None, sent_bytes: int, *, is_busy: bool, now: float
    ) -> float | None:
        if kind is not self._kind or not is_busy or sent_bytes < self._span_bytes:
            settle_s = SETTLE_S if kind is not self._kind else 0.0
            if kind is not self._kind:
                self._switched_at, self._switch_bytes = now, sent_bytes
            self._kind, self._span_from, self._span_bytes = kind, now + settle_s, sent_bytes
            return None
        if now <= self._span_from:
            self._span_bytes = sent_bytes
            return None
        if now < self._span_from + SPAN_S:
            return None
        rate = (sent_bytes - self._span_bytes) / (now - self._span_from)
        self._span_from, self._span_bytes = now, sent_bytes
        return rate

    def _drained_rate(
        self, kind: PathKind | None, sent_bytes: int, *, is_busy: bool, now: float
    ) -> float | None:
        """The relay's, when all that waited was gone before its trial was over."""
        if is_busy or kind is not PathKind.RELAY:
            return None
        if self._kind is not PathKind.RELAY:
            return None  # It was drained before anything was seen of the relay.
        return (sent_bytes - self._switch_bytes) / max(SETTLE_S, now - self._switched_at)

    def _judge_path(self, kind: PathKind, rate: float, now: float) -> None:
        if rate < LIMITS[kind].slow_bytes_s and now >= self._next_trial_at:
            self._slow_kind, self._rate_to_beat = kind, rate
            self.stage = Stage.ASKING
            self._until = now + ASK_S

    def _judge_relay(self, rate: float, now: float) -> None:
        if rate <= LIMITS[self._slow_kind].gain * self._rate_to_beat:
            self._stop(now)
            return
        self.stage = Stage.KEEPING
        self._until = now + KEEP_S
        self._interval_s = FIRST_INTERVAL_S
        self._next_trial_at = now

    def _stop(self, now: float) -> None:
        if self.stage in (Stage.ASKING, Stage.TRYING):
            self._next_trial_at = now + self._interval_s
            self._interval_s = min(LONGEST_INTERVAL_S, 2 * self._interval_s)
        self.stage = Stage.WATCHING
