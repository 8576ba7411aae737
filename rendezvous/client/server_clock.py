"""The server's time, from the times in its replies."""

from collections import deque
from dataclasses import dataclass

from transport.clock import is_plausible

_KEPT = 8


@dataclass(frozen=True, slots=True)
class Measurement:
    """The server had ``server_ms`` (Unix) when this machine had ``since_boot_ms``."""

    server_ms: int
    since_boot_ms: int
    round_trip_s: float


class ServerClock:
    """The best of the last measurements: as in NTP (RFC 5905 section 10), that of the shortest
    round trip, since its error is at most half of it.

    >>> clock = ServerClock()
    >>> clock.measured(server_ms=1_800_000_000_000, received_ms=500, round_trip_s=0.1)
    >>> clock.best.server_ms
    1800000000050
    """

    def __init__(self) -> None:
        self._last: deque[Measurement] = deque(maxlen=_KEPT)

    def measured(self, *, server_ms: int, received_ms: int, round_trip_s: float) -> None:
        """The server said ``server_ms``; its reply came ``received_ms`` after this machine's start.

        What cannot be the time is passed over.
        """
        if is_plausible(server_ms):
            now_there_ms = server_ms + round(round_trip_s * 1000 / 2)
            self._last.append(Measurement(now_there_ms, received_ms, round_trip_s))

    @property
    def best(self) -> Measurement | None:
        """The one to go by; None before the first."""
        return min(self._last, key=lambda measurement: measurement.round_trip_s, default=None)

    @property
    def round_trip_s(self) -> float | None:
        """The last round trip; None before the first measurement."""
        return self._last[-1].round_trip_s if self._last else None
