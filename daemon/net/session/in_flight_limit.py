"""Limits the bulk in flight, so that little of it queues up inside the path.

Nothing overtakes the bytes in flight: control messages and heartbeats wait behind them, and a
switch to a better path leaves them behind. So, as in LEDBAT (RFC 6817), the time that they take is
held near the shortest one seen: the rest was spent in queues. It is measured from sending, by this
side's clock, to the word that they have arrived, by the other side's. The clocks differ by nobody
knows what, but hardly more or less a minute later, and how long that word waits on its way back
counts for nothing.

A frame cannot be overtaken either, so it is no larger than what the path carries in 20 ms; but no
smaller than need be, since each costs as much time as the copying of some 100 KB. Where 64 KiB take
longer than 20 ms, a frame may take 100 ms.

Delays come from a busy processor too, so the limit does not fall below what the path has carried in
:data:`FLOOR_S` when it carried most. That is little on a slow path.
"""

from daemon.net.session.send_stream import Acknowledged
from protocol.peers.session_frames import MAX_FRAME_BYTES, SMALL_FRAME_BYTES

TARGET_QUEUE_S = 0.2
INITIAL_BYTES = 64 * 1024
"""It doubles with each round trip, as a TCP connection does that begins with less."""
FLOOR_S = 0.25
MIN_BYTES = 8 * 1024
MAX_FLOOR_BYTES = 128 * 1024
MAX_BYTES = 16 * 1024 * 1024
INITIAL_FRAME_BYTES = 8 * 1024
MIN_FRAME_BYTES = 4 * 1024
BASE_MEMORY_S = 30.0
FRAME_S, SLOW_FRAME_S = 0.02, 0.1
_SHRINK = 0.7
_DRAIN = 0.3
"""What is left of the limit at the end of a memory span, for a moment. Where a queue of this side's
own never empties, it would be taken for the path's own time in the end, and another be put on top
(as LEDBAT++ does, draft-irtf-iccrg-ledbat-plus-plus, section 4.4)."""
_RATE_SPAN_S, _SLOW_RATE_SPAN_S, _BURST_SPAN_S = 0.02, 0.2, 0.005
_RATE_SPAN_BYTES = 256 * 1024
"""A rate is measured over so much, or over the longer time: two frames of a slow path that one word
names look like a fast one's."""
_BURST_BYTES = 32 * 1024
"""Of so much that nothing follows, the rate is measured too: the path carries no less."""
_RATE_WEIGHT = 0.5


class _Recent:
    """The least or the most that was seen in this memory span or in the one before it."""

    def __init__(self, *, most: bool) -> None:
        self._most = most
        self._now: float | None = None
        self._before: float | None = None

    @property
    def value(self) -> float | None:
        """None: nothing was seen."""
        return self._of(self._now, self._before)

    def see(self, value: float) -> float:
        """The same, this one among them."""
        self._now = self._of(self._now, value)
        found = self._of(self._now, self._before)
        assert found is not None
        return found

    def turn(self) -> None:
        """A span begins. What was seen is kept for as long as nothing else is."""
        if self._now is not None:
            self._before, self._now = self._now, None

    def forget(self) -> None:
        """All of it."""
        self._now = self._before = None

    def _of(self, one: float | None, other: float | None) -> float | None:
        if one is None or other is None:
            return other if one is None else one
        return max(one, other) if self._most else min(one, other)


class InFlightLimit:
    """The limit for one path, adapted with each acknowledgement."""

    def __init__(self) -> None:
        self.limit_bytes = INITIAL_BYTES
        self._rate_bytes_s = 0.0
        self._best_rate_bytes_s = _Recent(most=True)
        self._rate_span_began: float | None = None
        self._rate_span_bytes = 0
        self._shortest_s = _Recent(most=False)
        """Of two spans, so that a path that grew longer is not taken for a queue for ever."""
        self._span_ends_at = 0.0
        self._was_full = False
        """Whether in this span the limit has held anything up."""
        self._shrunk_until = 0.0

    @property
    def frame_bytes(self) -> int:
        """How large a frame may be."""
        if not self._rate_bytes_s:
            return INITIAL_FRAME_BYTES
        slow = min(SMALL_FRAME_BYTES, round(self._rate_bytes_s * SLOW_FRAME_S))
        fast = min(MAX_FRAME_BYTES, round(self._rate_bytes_s * FRAME_S))
        return max(MIN_FRAME_BYTES, slow, fast)

    def acknowledged(
        self, arrived: Acknowledged, in_flight_bytes: int, now: float, said_at: float
    ) -> None:
        """``in_flight_bytes`` is how much there was before ``arrived`` was subtracted; ``said_at``:
        when the other side said so, by its clock."""
        self._measure_rate(arrived.cost_bytes, in_flight_bytes, said_at)
        if arrived.sent_at is None:
            return
        round_s = now - arrived.sent_at
        queued_s = self._queued_s(said_at - arrived.sent_at, round_s, now)
        was_full = 2 * in_flight_bytes >= self.limit_bytes
        self._was_full |= was_full
        if queued_s < TARGET_QUEUE_S:
            if was_full:
                self.limit_bytes = min(MAX_BYTES, self.limit_bytes + arrived.cost_bytes)
        elif now >= self._shrunk_until:
            self._shrink(_SHRINK)
            self._shrunk_until = now + round_s

    def _queued_s(self, way_s: float, round_s: float, now: float) -> float:
        if now >= self._span_ends_at:
            self._begin_span(now)
        queued_s = way_s - self._shortest_s.see(way_s)
        if queued_s <= round_s:
            return queued_s
        self._shortest_s.forget()  # No queue is longer than the round trip: a clock was set.
        return way_s - self._shortest_s.see(way_s)

    def _begin_span(self, now: float) -> None:
        if self._was_full:
            self._shrink(_DRAIN)
            self._was_full = False
        self._best_rate_bytes_s.turn()
        self._shortest_s.turn()
        if now >= self._span_ends_at + BASE_MEMORY_S:
            self._shortest_s.forget()
        self._span_ends_at = now + BASE_MEMORY_S

    def _measure_rate(self, arrived_bytes: int, in_flight_bytes: int, said_at: float) -> None:
        """Measure the rate from one acknowledgement to a later one, while something is under
        way."""
        is_over = arrived_bytes >= in_flight_bytes
        if self._rate_span_began is None:
            self._rate_span_began, self._rate_span_bytes = said_at, 0
        else:
            self._rate_span_bytes += arrived_bytes
            span_s = said_at - self._rate_span_began
            is_enough = span_s >= (
                _RATE_SPAN_S if self._rate_span_bytes >= _RATE_SPAN_BYTES else _SLOW_RATE_SPAN_S
            )
            if is_enough:
                self._note_rate(self._rate_span_bytes / span_s)
                self._rate_span_began, self._rate_span_bytes = said_at, 0
            elif is_over and self._rate_span_bytes >= _BURST_BYTES:
                least_bytes_s = self._rate_span_bytes / max(span_s, _BURST_SPAN_S)
                self._note_rate(max(self._rate_bytes_s, least_bytes_s))
        if is_over:
            self._rate_span_began = None

    def _note_rate(self, bytes_s: float) -> None:
        self._rate_bytes_s += _RATE_WEIGHT * (bytes_s - self._rate_bytes_s)
        self._best_rate_bytes_s.see(self._rate_bytes_s)

    def _shrink(self, factor: float) -> None:
        floor_bytes = round((self._best_rate_bytes_s.value or 0.0) * FLOOR_S)
        floor_bytes = max(MIN_BYTES, min(MAX_FLOOR_BYTES, floor_bytes))
        self.limit_bytes = max(floor_bytes, round(self.limit_bytes * factor))
