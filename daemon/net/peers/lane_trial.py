"""How many paths of one kind to use together. The answer is found by trying.

On a long line that loses packets a TCP connection gets a small part of what the line carries: the
congestion control that all systems come with takes each loss for a sign of too much traffic. (At
100 ms and 0.1 %, CUBIC gets some 5 Mbit/s in the long run, whatever the line.) One that was idle,
or whose first packets were lost, also needs long until it is as fast as a fresh one. Several
connections get several such parts. Where the line is full already they get nothing more.

So, while more waits than the paths take, more are tried: :data:`STEPS` says how many. The new
number is kept if it carries clearly more, else the one before is. When nothing was to be sent for
long, one path is enough again; the number that was worth it is remembered, and tried at once the
next time.

Fresh connections show what the line carries, since they begin fast. So beside several, more are
tried as soon as those carry clearly less than they have; if they never do, the line is likely to be
full. And more that seem to carry no more are not closed before it was seen that fewer carry as
much: what they were compared with may have been a good moment.

What counts is what has arrived, at all peers together. Where this peer's own line is full, more
connections to one peer carry more to that one and less to the rest: nobody has gained, and if all
did so there would be hundreds. Rates are compared only if as many others were sent to.

Sans-IO. Each side decides for what it sends.

>>> trial = LaneTrial()
>>> for second in range(3):  # 0.5 MB/s over one path, and more waits all the while.
...     arrived = Arrived(second * 500_000, in_all=second * 1_500_000)
...     trial.note(arrived, is_busy=True, count=1, now=float(second))
>>> trial.wanted
8
"""

import enum
from dataclasses import dataclass

from protocol.peers.lane_messages import MAX_LANES

STEPS = (1, 8, MAX_LANES)
"""So many are tried, one number after the other."""
SPAN_S, SHORT_SPAN_S = 2.0, 0.9
"""A rate is what arrived in so long a time with more waiting all the while,"""
SPAN_BYTES, SHORT_SPAN_BYTES = 1_000_000, 4_000_000
"""and until it was so much, since it comes in pieces,"""
LONGEST_SPAN_S = 10.0
"""or for so long."""
GAP_S = 5.0
"""If nothing was noted for so long, something else was tried meanwhile."""
SETTLE_S = 0.4
"""A connection that is new begins slowly."""
FIRST_S, FIRST_BYTES_S = 0.8, 2e6
"""If one path carries less, more are tried once more has waited for so long than it takes."""
STEADY_S, ENOUGH_BYTES_S = 10.0, 1e6
"""Several that carry as much as before are left alone for so long before more are tried; for a
longer time where each carries that much: losses do not hold them back."""
ASK_S = 10.0
"""A path that is not there by then will not be."""
GAIN, CLEAR_GAIN = 1.25, 2.0
"""More are kept if they carry so many times as much, in two spans one after the other or in one.
Beside several, more are tried once these carry so many times less than when they were fresh."""
RISING = 1.1
"""A rate that is so many times the one before may still rise."""
DOUBT_S = 8.0
"""Fewer that are to be left have to carry as much for so long."""
SLOW_BYTES_S, FAST_BYTES_S = 0.1e6, 40e6
"""What carries less or more is left alone: parts of little are too little."""
IDLE_S = 600.0
LONGEST_TRIAL_S = 90.0
VOID_S = 5.0
"""After a trial that told nothing."""
FIRST_INTERVAL_S = 60.0
LONGEST_INTERVAL_S = 1800.0


@dataclass(frozen=True, slots=True)
class Arrived:
    """Bytes of bulk so far, each counted once; or of these, bytes a second."""

    at_peer: float
    in_all: float
    """At whomever."""
    rivals: int = 0
    """How many other peers there are to whom more waits to be sent than the paths take."""

    def gains(self, other: "Arrived", factor: float) -> bool:
        """Whether this rate is so many times the other one, and nobody else has lost as much."""
        gain = (factor - 1) * other.at_peer
        return self.at_peer >= other.at_peer + gain and self.in_all >= other.in_all + gain


class Stage(enum.Enum):
    """WATCHING → ASKING → TRYING → DOUBTING → WATCHING; from each back to WATCHING."""

    WATCHING = enum.auto()
    ASKING = enum.auto()
    """More paths are wanted, and not there yet."""
    TRYING = enum.auto()
    DOUBTING = enum.auto()
    """They seem to carry no more: as many as before carry bulk, and the others are kept idle."""


class LaneTrial:
    """The trial with one peer's paths of the kind in use. ``now`` is monotonic seconds."""

    def __init__(self) -> None:
        self.wanted = 1
        """How many paths there should be."""
        self.stage = Stage.WATCHING
        self._kept = 1
        """How many there were before the trial."""
        self._worth = 1
        """How many were found to be worth it last."""
        self._rate_to_beat = Arrived(0.0, 0.0)
        self._is_hasty = False
        """Whether that is of the beginning alone."""
        self._tried_rate = Arrived(0.0, 0.0)
        self._best = 0.0
        """The best rate of as many as there are, since more waits than they take."""
        self._asked_at = self._doubted_at = 0.0
        self._noted_at = 0.0
        self._busy_at = 0.0
        self._busy_since = 0.0
        self._busy_from = Arrived(0.0, 0.0)
        self._next_trial_at = 0.0
        self._kept_at = 0.0
        self._interval_s = FIRST_INTERVAL_S
        self._count = 0
        self._rates: list[Arrived] = []
        """The last two with that many paths."""
        self._settled_at = self._span_from = 0.0
        self._span_arrived = Arrived(0.0, 0.0)

    @property
    def bulk_lanes(self) -> int:
        """How many of the paths are to carry bulk."""
        return self._kept if self.stage is Stage.DOUBTING else MAX_LANES

    def note(self, arrived: Arrived, *, is_busy: bool, count: int, now: float) -> None:
        """Call it once a second or more often, with how much has arrived so far, the number of
        paths in use, and whether more waits than they take."""
        if now >= self._noted_at + GAP_S:
            self._count, self._rates = 0, []
        self._note_busy(arrived, is_busy=is_busy, now=now)
        rate = self._rate(arrived, is_busy=is_busy, count=count, now=now)
        match self.stage:
            case Stage.WATCHING if rate is not None and count >= self.wanted:
                self._judge_paths(now)
            case Stage.WATCHING if self.wanted == 1 and is_busy:
                self._judge_beginning(arrived, now)
            case Stage.ASKING if count >= self.wanted or now >= self._asked_at + ASK_S:
                if count > self._kept:
                    self.stage, self._asked_at = Stage.TRYING, now
                else:
                    self._give_up(now)
            case Stage.ASKING if rate is not None and count == self._kept:
                if rate.at_peer > self._rate_to_beat.at_peer:
                    self._rate_to_beat, self._is_hasty = rate, False
            case Stage.TRYING if rate is not None:
                self._judge_trial(rate, count, now)
            case Stage.DOUBTING if rate is not None and len(self._rates) == 2:
                self._judge_fewer(count, now)
            case Stage.TRYING | Stage.DOUBTING if now >= self._asked_at + LONGEST_TRIAL_S:
                self._give_up(now)

    def rest(self) -> None:
        """One path is enough, until more waits again than it takes."""
        self.wanted = 1
        self.stage = Stage.WATCHING

    def _note_busy(self, arrived: Arrived, *, is_busy: bool, now: float) -> None:
        is_new = self._busy_at != self._noted_at or arrived.rivals != self._busy_from.rivals
        if not is_busy or is_new or now >= self._noted_at + GAP_S:
            self._busy_since, self._busy_from, self._best = now, arrived, 0.0
        self._noted_at = now
        if is_busy:
            self._busy_at = now
        elif now >= self._busy_at + IDLE_S:
            self.rest()

    def _rate(self, arrived: Arrived, *, is_busy: bool, count: int, now: float) -> Arrived | None:
        if count != self._count or arrived.rivals != self._span_arrived.rivals:
            self._rates = []
        if (
            count != self._count
            or not is_busy
            or arrived.at_peer < self._span_arrived.at_peer
            or arrived.rivals != self._span_arrived.rivals
        ):
            if count != self._count and self._count:
                self._settled_at = now + SETTLE_S
            self._count, self._span_from, self._span_arrived = count, now, arrived
            return None
        if self._span_from < self._settled_at:
            self._span_from, self._span_arrived = now, arrived
            return None
        span_s, span_bytes = now - self._span_from, arrived.at_peer - self._span_arrived.at_peer
        if span_bytes >= SHORT_SPAN_BYTES:
            least_s = SHORT_SPAN_S
        else:
            least_s = SPAN_S if span_bytes >= SPAN_BYTES else LONGEST_SPAN_S
        if span_s < least_s:
            return None
        rate = _rate_between(self._span_arrived, arrived, span_s)
        self._span_from, self._span_arrived = now, arrived
        self._rates = [*self._rates[-1:], rate]
        return rate

    def _judge_beginning(self, arrived: Arrived, now: float) -> None:
        busy_s = now - self._busy_since
        if busy_s < FIRST_S or arrived.rivals:
            return  # What is sent to several at once is more likely to fill this peer's own line.
        rate = _rate_between(self._busy_from, arrived, busy_s)
        if SLOW_BYTES_S <= rate.at_peer < FIRST_BYTES_S:
            self._ask(rate, now, is_hasty=True)

    def _judge_paths(self, now: float) -> None:
        if len(self._rates) < 2:
            return
        # The better of two: at the beginning a connection is slow, and chance has its part.
        worse, rate = sorted(self._rates, key=lambda rate: rate.at_peer)
        self._best = max(self._best, worse.at_peer)
        has_fallen = self._best >= GAIN * rate.at_peer
        steady_s = STEADY_S if rate.at_peer < ENOUGH_BYTES_S * self.wanted else FIRST_INTERVAL_S
        is_time = self.wanted == 1 or has_fallen or now >= self._kept_at + steady_s
        if is_time and rate.at_peer >= SLOW_BYTES_S:
            self._ask(rate, now)

    def _ask(self, rate: Arrived, now: float, *, is_hasty: bool = False) -> None:
        more = [number for number in STEPS if number > self.wanted]
        if rate.in_all < FAST_BYTES_S and more and now >= self._next_trial_at:
            self.stage = Stage.ASKING
            self._kept, self._rate_to_beat, self._asked_at = self.wanted, rate, now
            self._is_hasty = is_hasty
            self.wanted = max(more[0], self._worth)

    def _judge_trial(self, rate: Arrived, count: int, now: float) -> None:
        if rate.rivals != self._rate_to_beat.rivals:
            self._call_off(now)
        elif rate.gains(self._rate_to_beat, CLEAR_GAIN):
            self._keep(count, now)
        elif len(self._rates) == 2:
            # The worse of two: what waited for a gap to be filled arrives all at once.
            self._tried_rate = min(self._rates, key=lambda rate: rate.at_peer)
            if not self._is_hasty and self._tried_rate.gains(self._rate_to_beat, GAIN):
                self._keep(count, now)
            else:
                self.stage, self._rates = Stage.DOUBTING, []
                self._doubted_at, self._settled_at = now, now + SETTLE_S

    def _judge_fewer(self, count: int, now: float) -> None:
        before, rate = self._rates
        if rate.rivals != self._rate_to_beat.rivals:
            self._call_off(now)
        elif rate.gains(before, RISING):
            return  # They take what the others have left.
        elif self._tried_rate.gains(max(before, rate, key=lambda rate: rate.at_peer), GAIN):
            self._keep(count, now)
        elif now >= self._doubted_at + DOUBT_S:
            self._give_up(now)

    def _keep(self, count: int, now: float) -> None:
        self.stage = Stage.WATCHING
        self.wanted = self._worth = min(self.wanted, count)
        self._interval_s = FIRST_INTERVAL_S
        self._best, self._kept_at = 0.0, now
        self._judge_paths(now)

    def _give_up(self, now: float) -> None:
        self.stage = Stage.WATCHING
        self.wanted = self._worth = self._kept
        self._best = 0.0
        self._next_trial_at = now + self._interval_s
        self._interval_s = min(LONGEST_INTERVAL_S, 2 * self._interval_s)

    def _call_off(self, now: float) -> None:
        self.stage = Stage.WATCHING
        self.wanted = self._kept
        self._next_trial_at = now + VOID_S


def _rate_between(before: Arrived, after: Arrived, seconds: float) -> Arrived:
    return Arrived(
        (after.at_peer - before.at_peer) / seconds,
        (after.in_all - before.in_all) / seconds,
        after.rivals,
    )
