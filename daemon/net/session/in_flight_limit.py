"""Limits the bulk in flight, so that little of it queues up inside the path.

Nothing overtakes the bytes in flight: control messages and heartbeats wait behind them, and a
switch to a better path leaves them behind. So, as in LEDBAT (RFC 6817), the time that they take is
held near the shortest one seen: the rest was spent in queues. It is measured from sending, by this
side's clock, to the word that they have arrived, by the other side's. The clocks differ by nobody
knows what, always the same, and how long that word waits on its way back counts for nothing.

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
_RATE_SPAN_S, _SLOW_RATE_SPAN_S = 0.02, 0.2
_RATE_SPAN_BYTES = 256 * 1024
"""A rate is measured over so much, or over the longer time: two frames of a slow path that one word
names look like a fast one's."""
_RATE_WEIGHT = 0.5


class InFlightLimit:
    """The limit for one path, adapted with each acknowledgement."""

    def __init__(self) -> None:
        self.limit_bytes = INITIAL_BYTES
        self._rate_bytes_s = 0.0
        self._best_rate_bytes_s = self._earlier_best_rate_bytes_s = 0.0
        """Of the current memory span, and of the one before it."""
        self._rate_span_began: float | None = None
        self._rate_span_bytes = 0
        self._base_s: float | None = None
        """Shortest delay of the current memory span; the one before it still counts too, so that a
        path that grew longer is not taken for a queue for ever."""
        self._earlier_base_s: float | None = None
        self._span_ends_at = 0.0
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
        delay_s = said_at - arrived.sent_at
        queued_s = delay_s - self._shortest_s(delay_s, now)
        if queued_s < TARGET_QUEUE_S:
            if 2 * in_flight_bytes >= self.limit_bytes:  # Else the limit was not what held it up.
                self.limit_bytes = min(MAX_BYTES, self.limit_bytes + arrived.cost_bytes)
        elif now >= self._shrunk_until:
            self._shrink(_SHRINK)
            self._shrunk_until = now + (now - arrived.sent_at)

    def _measure_rate(self, arrived_bytes: int, in_flight_bytes: int, said_at: float) -> None:
        """Measure the rate from one acknowledgement to a later one, while something is under
        way."""
        if self._rate_span_began is None:
            self._rate_span_began, self._rate_span_bytes = said_at, 0
        else:
            self._rate_span_bytes += arrived_bytes
            span_s = said_at - self._rate_span_began
            enough_s = (
                _RATE_SPAN_S if self._rate_span_bytes >= _RATE_SPAN_BYTES else _SLOW_RATE_SPAN_S
            )
            if span_s >= enough_s:
                rate_bytes_s = self._rate_span_bytes / span_s
                self._rate_bytes_s += _RATE_WEIGHT * (rate_bytes_s - self._rate_bytes_s)
                self._best_rate_bytes_s = max(self._best_rate_bytes_s, self._rate_bytes_s)
                self._rate_span_began, self._rate_span_bytes = said_at, 0
        if arrived_bytes >= in_flight_bytes:
            self._rate_span_began = None

    def _shrink(self, factor: float) -> None:
        best_rate_bytes_s = max(self._best_rate_bytes_s, self._earlier_best_rate_bytes_s)
        floor_bytes = max(MIN_BYTES, min(MAX_FLOOR_BYTES, round(best_rate_bytes_s * FLOOR_S)))
        self.limit_bytes = max(floor_bytes, round(self.limit_bytes * factor))

    def _shortest_s(self, delay_s: float, now: float) -> float:
        if now >= self._span_ends_at:
            if self._base_s is not None:
                self._shrink(_DRAIN)
            self._earlier_base_s, self._base_s = self._base_s, None
            self._earlier_best_rate_bytes_s = self._best_rate_bytes_s
            self._best_rate_bytes_s = 0.0
            self._span_ends_at = now + BASE_MEMORY_S
        self._base_s = delay_s if self._base_s is None else min(self._base_s, delay_s)
        if self._earlier_base_s is None:
            return self._base_s
        return min(self._base_s, self._earlier_base_s)
