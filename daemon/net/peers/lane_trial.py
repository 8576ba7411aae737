"""How many paths of one kind to use together. The answer is found by trying.

On a long line that loses packets a TCP connection gets a small part of what the line carries: the
congestion control that all systems come with takes each loss for a sign of too much traffic. (At
100 ms and 0.1 %, CUBIC gets some 10 Mbit/s, whatever the line.) Several connections get several
such parts. Where the line is full already they get nothing more.

So, while more waits than the paths take, four times as many are tried and the rates are compared:
the new number is kept if it carries clearly more, and multiplied again; else the one before is.
When nothing was to be sent for long, one path is enough again.

What counts is what has arrived, at all peers together. Where this peer's own line is full, more
connections to one peer carry more to that one and less to the rest: nobody has gained, and if all
did so there would be hundreds. Rates are compared only if as many others were sent to.

Sans-IO. Each side decides for what it sends.

>>> trial = LaneTrial()
>>> for second in range(6):  # 1 MB/s over one path, and more waits all the while.
...     arrived = Arrived(second * 1_000_000, in_all=second * 3_000_000)
...     trial.note(arrived, is_busy=True, count=1, now=float(second))
>>> trial.wanted
4
"""

import enum
from dataclasses import dataclass

from protocol.peers.lane_messages import MAX_LANES

SPAN_S = 2.0
"""A rate is what arrived in so long a time with more waiting all the while,"""
SPAN_BYTES = 1_000_000
"""and until it was so much, since it comes in pieces,"""
LONGEST_SPAN_S = 10.0
"""or for so long."""
GAP_S = 5.0
"""If nothing was noted for so long, something else was tried meanwhile."""
SETTLE_S = 2.0
"""A connection that is new begins slowly."""
ASK_S = 20.0
"""A path that is not there by then will not be."""
FACTOR = 4
"""So many times as many are tried,"""
GAIN = 1.25
"""and kept if they carry so many times as much."""
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


class Stage(enum.Enum):
    """WATCHING → ASKING → TRYING → WATCHING; from each back to WATCHING."""

    WATCHING = enum.auto()
    ASKING = enum.auto()
    """More paths are wanted, and not there yet."""
    TRYING = enum.auto()


class LaneTrial:
    """The trial with one peer's paths of the kind in use. ``now`` is monotonic seconds."""

    def __init__(self) -> None:
        self.wanted = 1
        """How many paths there should be."""
        self.stage = Stage.WATCHING
        self._kept = 1
        """How many there were before the trial."""
        self._rate_to_beat = Arrived(0.0, 0.0)
        self._asked_at = 0.0
        self._noted_at = 0.0
        self._busy_at = 0.0
        self._next_trial_at = 0.0
        self._interval_s = FIRST_INTERVAL_S
        self._count = 0
        self._rates: list[Arrived] = []
        """The last two with that many paths."""
        self._span_from = 0.0
        self._span_arrived = Arrived(0.0, 0.0)

    def note(self, arrived: Arrived, *, is_busy: bool, count: int, now: float) -> None:
        """Call it once a second, with how much has arrived so far, the number of paths in
        use, and whether more waits than they take."""
        if now >= self._noted_at + GAP_S:
            self._count, self._rates = 0, []
        self._noted_at = now
        if is_busy:
            self._busy_at = now
        elif now >= self._busy_at + IDLE_S:
            self.rest()
        rate = self._rate(arrived, is_busy=is_busy, count=count, now=now)
        match self.stage:
            case Stage.WATCHING if rate is not None and count >= self.wanted:
                self._judge_paths(now)
            case Stage.ASKING if count >= self.wanted or now >= self._asked_at + ASK_S:
                if count > self._kept:
                    self.stage, self._asked_at = Stage.TRYING, now
                else:
                    self._give_up(now)
            case Stage.TRYING if rate is not None and len(self._rates) == 2:
                self._judge_trial(count, now)
            case Stage.TRYING if now >= self._asked_at + LONGEST_TRIAL_S:
                self._give_up(now)

    def rest(self) -> None:
        """One path is enough, until more waits again than it takes."""
        self.wanted = 1
        self.stage = Stage.WATCHING

    def _rate(self, arrived: Arrived, *, is_busy: bool, count: int, now: float) -> Arrived | None:
        if count != self._count or arrived.rivals != self._span_arrived.rivals:
            self._rates = []
        if (
            count != self._count
            or not is_busy
            or arrived.at_peer < self._span_arrived.at_peer
            or arrived.rivals != self._span_arrived.rivals
        ):
            settle_s = SETTLE_S if count != self._count and self._count else 0.0
            self._count, self._span_from, self._span_arrived = count, now + settle_s, arrived
            return None
        if now <= self._span_from:
            self._span_arrived = arrived
            return None
        span_s = now - self._span_from
        is_little = arrived.at_peer - self._span_arrived.at_peer < SPAN_BYTES
        if span_s < (LONGEST_SPAN_S if is_little else SPAN_S):
            return None
        before, self._span_from, self._span_arrived = self._span_arrived, now, arrived
        rate = Arrived(
            (arrived.at_peer - before.at_peer) / span_s,
            (arrived.in_all - before.in_all) / span_s,
            arrived.rivals,
        )
        self._rates = [*self._rates[-1:], rate]
        return rate

    def _judge_paths(self, now: float) -> None:
        if len(self._rates) < 2:
            return
        # The better of two: at the beginning a connection is slow.
        rate = max(self._rates, key=lambda rate: rate.at_peer)
        is_between = rate.at_peer >= SLOW_BYTES_S and rate.in_all < FAST_BYTES_S
        if is_between and self.wanted < MAX_LANES and now >= self._next_trial_at:
            self.stage = Stage.ASKING
            self._kept, self._rate_to_beat, self._asked_at = self.wanted, rate, now
            self.wanted = min(MAX_LANES, FACTOR * self.wanted)

    def _judge_trial(self, count: int, now: float) -> None:
        # The worse of two: what waited for a gap to be filled arrives all at once.
        rate = min(self._rates, key=lambda rate: rate.at_peer)
        gain = (GAIN - 1) * self._rate_to_beat.at_peer
        if rate.rivals != self._rate_to_beat.rivals:
            self.stage = Stage.WATCHING
            self.wanted = self._kept
            self._next_trial_at = now + VOID_S
        elif (
            rate.at_peer >= self._rate_to_beat.at_peer + gain
            and rate.in_all >= self._rate_to_beat.in_all + gain
        ):
            self.stage = Stage.WATCHING
            self.wanted = min(self.wanted, count)
            self._interval_s = FIRST_INTERVAL_S
            self._judge_paths(now)
        else:
            self._give_up(now)

    def _give_up(self, now: float) -> None:
        self.stage = Stage.WATCHING
        self.wanted = self._kept
        self._next_trial_at = now + self._interval_s
        self._interval_s = min(LONGEST_INTERVAL_S, 2 * self._interval_s)
