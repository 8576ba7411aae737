"""Whether a worse kind of path carries more than the one in use. The answer is found by trying.

Some networks slow down TCP and leave UDP alone: there an ice path is faster than a direct or a
punched one. Congestion control over UDP gives up most of the line where some packets are lost (0.4
MB/s at 40 ms and 1 %): there the TCP connections to a relay are faster, if the kernel's is one that
minds loss less (BBR: 19 MB/s). Between two hosts TCP does as well as over a relay, unless the route
between just these two is bad, full or throttled.

The difference shows only when there is much to send. So this is what happens then:

- A path that carries less than its kind's :class:`Limit` is compared with all kinds that are worse,
  the best of these first. Ice is tried before the relay, since a relay is shared by everybody.
- A kind is tried for a moment. It is kept if it carries clearly more than the slow path did.
- What is in flight at a switch is sent again, so a trial costs something. A path over TCP has to
  carry next to nothing before it is compared, and the other one much more.

Sans-IO. Each side decides for what it sends.
"""

import enum
from collections.abc import Collection
from dataclasses import dataclass

from daemon.net.path_kind import PathKind
from daemon.net.peers.path_score import BEST_FIRST, Preferred

SPAN_S = 2.0
"""A rate is what was sent in so long a time with more waiting all the while."""
SETTLE_S = 1.0
"""Right after a switch what was in flight on the other path is sent again."""
ASK_S = 15.0
"""A path that is not there by then will not be."""
FIRST_CHOICE_S = 4.0
"""How long a worse kind waits for a better one that was asked for and may still come."""
KEEP_S = 600.0
FIRST_INTERVAL_S = 60.0
LONGEST_INTERVAL_S = 1800.0


@dataclass(frozen=True, slots=True)
class Limit:
    """When a kind of path is too slow, and what beats it."""

    slow_bytes_s: float
    """A faster one is left alone."""
    gain: float
    """The other kind has to carry so many times as much."""


_TCP = Limit(slow_bytes_s=0.2e6, gain=3.0)
LIMITS = {
    PathKind.DIRECT: _TCP,
    PathKind.PUNCHED: _TCP,
    PathKind.ICE: Limit(slow_bytes_s=4e6, gain=1.25),
}
CHALLENGERS = (PathKind.ICE, PathKind.RELAY)
"""The kinds that a better one is compared with, the best first."""


class Stage(enum.Enum):
    """WATCHING → ASKING → TRYING → KEEPING → WATCHING; TRYING → ASKING while another kind is left
    to try; from each back to WATCHING."""

    WATCHING = enum.auto()
    ASKING = enum.auto()
    """The path is slow, and no path that it is to be compared with is there yet."""
    TRYING = enum.auto()
    KEEPING = enum.auto()


class RateTrial:
    """The trial among one peer's paths. ``now`` is monotonic seconds."""

    def __init__(self) -> None:
        self.stage = Stage.WATCHING
        self._slow_kind = PathKind.ICE
        """The kind that others are compared with."""
        self._rate_to_beat = 0.0
        self._untried: tuple[PathKind, ...] = ()
        self._tried: PathKind | None = None
        """The kind that is tried or kept."""
        self._asked_at = 0.0
        self._keep_until = 0.0
        self._next_trial_at = 0.0
        self._interval_s = FIRST_INTERVAL_S
        self._kind: PathKind | None = None
        self._span_from = 0.0
        self._span_bytes = 0
        self._switched_at = 0.0
        self._switch_bytes = 0

    @property
    def wanted(self) -> frozenset[PathKind]:
        """The kinds of which there has to be a path, whatever others there are."""
        match self.stage:
            case Stage.WATCHING:
                return frozenset()
            case Stage.KEEPING:
                return frozenset(CHALLENGERS) & {self._tried}
            case _:
                return frozenset(CHALLENGERS) & {*self._untried, self._tried}

    @property
    def preferred(self) -> Preferred | None:
        """The worse kind that is used now instead of a better one, if any."""
        if self._tried is None:
            return None
        return Preferred(self._tried, self._slow_kind)

    def note(
        self,
        kind: PathKind | None,
        sent_bytes: int,
        *,
        is_busy: bool,
        available: Collection[PathKind],
        now: float,
    ) -> None:
        """Call it every second or so, with the path in use and how much was sent over it in all,
        whether more waits than it takes, and the kinds of path that there are."""
        better = BEST_FIRST[: BEST_FIRST.index(self._slow_kind)]
        is_lost = self._tried is not None and self._tried not in available
        if any(one in available for one in better) or is_lost:
            self._stop(now)
        drained_rate = self._drained_rate(kind, sent_bytes, is_busy=is_busy, now=now)
        rate = self._rate(kind, sent_bytes, is_busy=is_busy, now=now)
        match self.stage:
            case Stage.WATCHING if rate is not None and kind in LIMITS:
                self._judge_path(kind, rate, now)
            case Stage.ASKING if not is_busy or now >= self._asked_at + ASK_S:
                self._stop(now)
            case Stage.TRYING if drained_rate is not None:
                self._judge_tried(drained_rate, now)
            case Stage.TRYING if not is_busy:
                self._stop(now)
            case Stage.TRYING if rate is not None and kind is self._tried:
                self._judge_tried(rate, now)
            case Stage.KEEPING if rate is not None and now >= self._keep_until:
                self._watch()  # The path may be better by now.
        if self.stage is Stage.ASKING:
            self._choose(available, now)

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
        """The rate of the kind that is tried, when all that waited was gone before its trial was
        over."""
        if is_busy or kind is None or kind is not self._tried:
            return None
        if self._kind is not kind:
            return None  # All was gone before anything was seen of it.
        return (sent_bytes - self._switch_bytes) / max(SETTLE_S, now - self._switched_at)

    def _judge_path(self, kind: PathKind, rate: float, now: float) -> None:
        if rate < LIMITS[kind].slow_bytes_s and now >= self._next_trial_at:
            self._slow_kind, self._rate_to_beat = kind, rate
            worse = BEST_FIRST[BEST_FIRST.index(kind) + 1 :]
            self._untried = tuple(one for one in CHALLENGERS if one in worse)
            self._ask(now)

    def _ask(self, now: float) -> None:
        self.stage = Stage.ASKING
        self._tried = None
        self._asked_at = now

    def _choose(self, available: Collection[PathKind], now: float) -> None:
        """Begin to try the best kind that is there, unless a better one may still come."""
        is_settled = now >= self._asked_at + FIRST_CHOICE_S
        for kind in self._untried:
            if kind in available:
                self._untried = tuple(one for one in self._untried if one is not kind)
                self._tried = kind
                self.stage = Stage.TRYING
                return
            if not is_settled:
                return

    def _judge_tried(self, rate: float, now: float) -> None:
        if rate > LIMITS[self._slow_kind].gain * self._rate_to_beat:
            self.stage = Stage.KEEPING
            self._keep_until = now + KEEP_S
            self._interval_s = FIRST_INTERVAL_S
            self._next_trial_at = now
        elif self._untried:
            self._ask(now)
        else:
            self._stop(now)

    def _stop(self, now: float) -> None:
        if self.stage in (Stage.ASKING, Stage.TRYING):
            self._next_trial_at = now + self._interval_s
            self._interval_s = min(LONGEST_INTERVAL_S, 2 * self._interval_s)
        self._watch()

    def _watch(self) -> None:
        self.stage = Stage.WATCHING
        self._tried = None
