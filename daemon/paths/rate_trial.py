"""Whether the relay carries more than an ice path does, found out by trying.

Congestion control over UDP gives up most of the line where some packets are lost (0.4 MB/s at 40 ms
and 1 %), while the TCP connections to a relay keep it (19 MB/s). What is faster shows only when
there is much to send: then, if an ice path is slow, the relay is tried for a moment, and kept if it
is clearly better. Sans-IO. Each side decides for what it sends.
"""

from collections.abc import Collection

from daemon.paths.standby import BETTER
from daemon.status import PathKind

SPAN_S = 2.0
"""A rate is what was sent in so long a time with more waiting all the while."""
SETTLE_S = 1.0
"""Right after a switch what was in flight on the other path is sent again."""
SLOW_BYTES_S = 4e6
"""A faster ice path is left alone."""
GAIN = 1.25
KEEP_S = 600.0
FIRST_INTERVAL_S = 60.0
LONGEST_INTERVAL_S = 1800.0


class RateTrial:
    """Of one peer's paths. ``now`` is monotonic seconds."""

    def __init__(self) -> None:
        self.prefers_relay = False
        """To the ice path."""
        self._rate_to_beat: float | None = None
        """While the relay is being tried."""
        self._kept_until = 0.0
        self._next_trial_at = 0.0
        self._interval_s = FIRST_INTERVAL_S
        self._kind: PathKind | None = None
        self._span_from = 0.0
        self._span_bytes = 0
        self._switched_at = 0.0
        self._switch_bytes = 0

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
        if PathKind.RELAY not in available or any(better in available for better in BETTER):
            self._stop_trial(now)
            self.prefers_relay = False
        drained_rate = self._drained_rate(kind, sent_bytes, is_busy=is_busy, now=now)
        rate = self._rate(kind, sent_bytes, is_busy=is_busy, now=now)
        if drained_rate is not None:
            self._judge_relay(drained_rate, now)
        elif not is_busy:
            self._stop_trial(now)
        elif rate is not None and kind is PathKind.ICE:
            self._judge_ice(rate, available, now)
        elif rate is not None and kind is PathKind.RELAY:
            self._judge_relay(rate, now)

    def _rate(
        self, kind: PathKind | None, sent_bytes: int, *, is_busy: bool, now: float
    ) -> float | None:
        if kind is not self._kind or not is_busy:
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
        if is_busy or self._rate_to_beat is None or kind is not PathKind.RELAY:
            return None
        if self._kind is not PathKind.RELAY:
            return None  # It was drained before anything was seen of the relay.
        return (sent_bytes - self._switch_bytes) / max(SETTLE_S, now - self._switched_at)

    def _judge_ice(self, rate: float, available: Collection[PathKind], now: float) -> None:
        if rate < SLOW_BYTES_S and PathKind.RELAY in available and now >= self._next_trial_at:
            self._rate_to_beat = rate
            self.prefers_relay = True

    def _judge_relay(self, rate: float, now: float) -> None:
        if self._rate_to_beat is not None:
            is_better = rate >= GAIN * self._rate_to_beat
            self._stop_trial(now)
            if is_better:
                self.prefers_relay = True
                self._kept_until = now + KEEP_S
                self._interval_s = FIRST_INTERVAL_S
                self._next_trial_at = now
        elif self.prefers_relay and now >= self._kept_until:
            self.prefers_relay = False  # The ice path may be better by now.

    def _stop_trial(self, now: float) -> None:
        if self._rate_to_beat is not None:
            self._rate_to_beat = None
            self.prefers_relay = False
            self._next_trial_at = now + self._interval_s
            self._interval_s = min(LONGEST_INTERVAL_S, 2 * self._interval_s)
