"""When to acknowledge: early enough that no sender waits, seldom enough to cost little."""

from daemon.net.session.receive_stream import Arrival

ACK_DELAY_S = 0.02
ACK_FRAMES = 4
ACK_BYTES = 1 << 20


class AckTimer:
    """An acknowledgement is due for every 4th frame or 1 MiB, 20 ms after a first one, and at
    once when frames are missing or came twice (then the sender does not know how things stand)."""

    def __init__(self) -> None:
        self.due_at: float | None = None
        self._frames = 0
        self._bytes = 0

    def is_due(self, now: float) -> bool:
        """Whether to acknowledge now."""
        return self.due_at is not None and now >= self.due_at

    def frame_arrived(self, arrival: Arrival, size_bytes: int, now: float) -> None:
        """A data frame came."""
        self._frames += 1
        self._bytes += size_bytes
        is_enough = self._frames >= ACK_FRAMES or self._bytes >= ACK_BYTES
        if arrival is not Arrival.IN_ORDER or is_enough:
            self.due_at = now
        elif self.due_at is None:
            self.due_at = now + ACK_DELAY_S

    def sent(self) -> None:
        """All that arrived so far is acknowledged."""
        self.due_at = None
        self._frames = self._bytes = 0
