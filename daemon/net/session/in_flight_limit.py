"""Limits the bulk in flight, so that little of it queues up inside the path.

Nothing overtakes the bytes in flight: control messages and heartbeats wait behind them, and a
switch to a better path leaves them behind. So, as in LEDBAT (RFC 6817), the time from sending to
hearing of the arrival is held near the shortest one seen: the rest was spent in queues.

A frame cannot be overtaken either, so it is no larger than what the path carries in 20 ms; and on a
fast path no smaller than need be, since each costs as much time as the copying of some 100 KB.
"""

from daemon.net.session.send_stream import Acknowledged
from protocol.peers.session_frames import MAX_FRAME_BYTES, SMALL_FRAME_BYTES

TARGET_QUEUE_S = 0.2
INITIAL_BYTES = 512 * 1024
MIN_BYTES = 128 * 1024
MAX_BYTES = 16 * 1024 * 1024
BASE_MEMORY_S = 30.0
FRAME_S = 0.02
_SHRINK = 0.7
_RATE_SPAN_S = 0.02
_RATE_WEIGHT = 0.5


class InFlightLimit:
    """The limit for one path, adapted with each acknowledgement."""

    def __init__(self) -> None:
        self.limit_bytes = INITIAL_BYTES
        self._rate_bytes_s = 0.0
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
        """How large a frame may be: what the path carries in :data:`FRAME_S`."""
        carried = round(self._rate_bytes_s * FRAME_S)
        return max(SMALL_FRAME_BYTES, min(MAX_FRAME_BYTES, carried))

    def acknowledged(self, arrived: Acknowledged, in_flight_bytes: int, now: float) -> None:
        """``in_flight_bytes`` is how much there was before ``arrived`` was subtracted."""
        self._measure_rate(arrived.cost_bytes, in_flight_bytes, now)
        if arrived.delay_s is None:
            return
        queued_s = arrived.delay_s - self._shortest_s(arrived.delay_s, now)
        if queued_s < TARGET_QUEUE_S:
            if 2 * in_flight_bytes >= self.limit_bytes:  # Else the limit was not what held it up.
                self.limit_bytes = min(MAX_BYTES, self.limit_bytes + arrived.cost_bytes)
        elif now >= self._shrunk_until:
            self.limit_bytes = max(MIN_BYTES, round(self.limit_bytes * _SHRINK))
            self._shrunk_until = now + arrived.delay_s

    def _measure_rate(self, arrived_bytes: int, in_flight_bytes: int, now: float) -> None:
        """Measure the rate from one acknowledgement to a later one, while something is under
        way."""
        if self._rate_span_began is None:
            self._rate_span_began, self._rate_span_bytes = now, 0
        else:
            self._rate_span_bytes += arrived_bytes
            span_s = now - self._rate_span_began
            if span_s >= _RATE_SPAN_S:
                rate_bytes_s = self._rate_span_bytes / span_s
                self._rate_bytes_s += _RATE_WEIGHT * (rate_bytes_s - self._rate_bytes_s)
                self._rate_span_began, self._rate_span_bytes = now, 0
        if arrived_bytes >= in_flight_bytes:
            self._rate_span_began = None

    def _shortest_s(self, delay_s: float, now: float) -> float:
        if now >= self._span_ends_at:
            self._earlier_base_s, self._base_s = self._base_s, None
            self._span_ends_at = now + BASE_MEMORY_S
        self._base_s = delay_s if self._base_s is None else min(self._base_s, delay_s)
        if self._earlier_base_s is None:
            return self._base_s
        return min(self._base_s, self._earlier_base_s)
