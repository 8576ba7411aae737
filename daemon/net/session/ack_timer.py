"""When to acknowledge: early enough that no sender waits, seldom enough to cost little."""

from daemon.net.session.receive_stream import Arrival

ACK_DELAY_S = 0.02
ACK_FRAMES = 16


class AckTimer:
    """An acknowledgement is due for every 16th frame, 20 ms after a first one, and at once when
    frames are missing or came twice (then the sender does not know how things stand)."""

    def __init__(self) -> None:
        self.due_at: float | None = None
        self._frames = 0

    def is_due(self, now: float) -> bool:
        """Whether to acknowledge now."""
        return self.due_at is not None and now >= self.due_at

    def frame_arrived(self, arrival: Arrival, now: float) -> None:
        """A data frame came."""
        self._frames += 1
        if arrival is not Arrival.IN_ORDER or self._frames >= ACK_FRAMES:
            self.due_at = now
        elif self.due_at is None:
            self.due_at = now + ACK_DELAY_S

    def sent(self) -> None:
        """All that arrived so far is acknowledged."""
        self.due_at = None
        self._frames = 0
