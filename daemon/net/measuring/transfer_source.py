"""The sending side of one measured transfer: how far it is, and what is said about it. Sans-IO.

::

    OFFERED ──accepted──▶ SENDING ──all sent, or the time is up──▶ SENT ──report──▶ REPORTED
       └───────────────────── refused, or given up: FAILED ◀─────────────┘

The rate is the bytes that the other side says have arrived, over the time until it said so.
"""

import enum
import secrets

from protocol.merkle import CHUNK_BYTES
from protocol.peers.chunk_frame import encode_chunk
from protocol.peers.measure_messages import (
    MEASUREMENT_ID_BYTES,
    MeasuredPath,
    TransferAccepted,
    TransferEnd,
    TransferOffer,
    TransferRefused,
    TransferReport,
)

Answer = TransferAccepted | TransferRefused | TransferReport

LONGEST_SENDING_S = 60.0
REPORT_S = 60.0
"""The time for what is still queued at the end: the path may be slow."""


class SourceState(enum.Enum):
    """Where a transfer is."""

    OFFERED = "offered"
    SENDING = "sending"
    SENT = "sent"
    REPORTED = "reported"
    FAILED = "failed"


class TransferSource:
    """One transfer. ``now`` is monotonic seconds."""

    def __init__(self, path: MeasuredPath, size_bytes: int) -> None:
        self.state = SourceState.OFFERED
        self.offer = TransferOffer(
            measurement=secrets.token_bytes(MEASUREMENT_ID_BYTES), size_bytes=size_bytes, path=path
        )
        self.failure = ""
        """Why it failed."""
        self.delivered_bytes = 0
        self.seconds = 0.0
        # Random, so that nothing on the way makes it smaller; once, so that making it costs nothing
        # of the time. No compressor looks back as far as a chunk.
        self._payload = secrets.token_bytes(min(CHUNK_BYTES, size_bytes))
        self._sent_bytes = 0
        self._next_index = 0
        self._began_at = 0.0

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is to be waited for."""
        return self.state in (SourceState.REPORTED, SourceState.FAILED)

    def begin(self, now: float) -> None:
        """Start the clock."""
        self._began_at = now

    def take_chunk(self) -> bytes:
        """The next bulk message; only while SENDING."""
        size = min(len(self._payload), self.offer.size_bytes - self._sent_bytes)
        chunk = encode_chunk(
            self.offer.measurement, self._next_index, memoryview(self._payload)[:size]
        )
        self._next_index += 1
        self._sent_bytes += size
        if self._sent_bytes == self.offer.size_bytes:
            self.state = SourceState.SENT
        return chunk

    def receive(self, answer: Answer, now: float) -> None:
        """Take in what the other side says of this transfer; of others, or out of turn: nothing."""
        if answer.measurement != self.offer.measurement or self.has_ended:
            return
        match answer:
            case TransferAccepted() if self.state is SourceState.OFFERED:
                self.state = SourceState.SENDING
            case TransferRefused(reason=reason):
                self.fail(f"the peer refuses: {ascii(reason)[1:-1]}")
            case TransferReport(received_bytes=received) if received == self._sent_bytes:
                self.state = SourceState.REPORTED
                self.delivered_bytes = received
                self.seconds = now - self._began_at

    def fail(self, failure: str) -> None:
        """Give it up."""
        if not self.has_ended:
            self.state = SourceState.FAILED
            self.failure = failure

    def deadline(self) -> float | None:
        """When to call :meth:`handle_timer` next."""
        match self.state:
            case SourceState.SENDING:
                return self._began_at + LONGEST_SENDING_S
            case SourceState.SENT:
                return self._began_at + LONGEST_SENDING_S + REPORT_S
            case _:
                return None

    def handle_timer(self, now: float) -> TransferEnd | None:
        """Do what is due; the result is to be told to the other side."""
        deadline = self.deadline()
        if deadline is None or now < deadline:
            return None
        if self.state is SourceState.SENT:
            self.fail(f"the peer has not confirmed {self._sent_bytes} bytes in {REPORT_S:.0f} s")
            return None
        self.state = SourceState.SENT
        return TransferEnd(measurement=self.offer.measurement, size_bytes=self._sent_bytes)

    def cancel(self) -> TransferEnd:
        """What tells the other side to wait for nothing more."""
        return TransferEnd(measurement=self.offer.measurement, size_bytes=0)
