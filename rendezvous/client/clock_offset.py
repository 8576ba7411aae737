"""How far this machine's clock is from the server's, from the times in its replies."""

from collections import deque
from dataclasses import dataclass

_KEPT = 8


@dataclass(frozen=True, slots=True)
class _Measurement:
    offset_ms: int
    round_trip_s: float


class ClockOffset:
    """The best of the last measurements: as in NTP (RFC 5905 section 10), that of the shortest
    round trip, since its error is at most half of it."""

    def __init__(self) -> None:
        self._last: deque[_Measurement] = deque(maxlen=_KEPT)

    def measured(self, *, server_ms: int, received_ms: int, round_trip_s: float) -> None:
        """The server said ``server_ms``; its reply came at ``received_ms`` by our wall clock."""
        sent_to_now_ms = round(round_trip_s * 1000 / 2)
        self._last.append(_Measurement(server_ms + sent_to_now_ms - received_ms, round_trip_s))

    @property
    def offset_ms(self) -> int | None:
        """The server's clock minus ours; None before the first measurement."""
        if not self._last:
            return None
        return min(self._last, key=lambda measurement: measurement.round_trip_s).offset_ms

    @property
    def round_trip_s(self) -> float | None:
        """The last round trip; None before the first measurement."""
        return self._last[-1].round_trip_s if self._last else None
