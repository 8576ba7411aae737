"""The receiving half of a stream: order, reassembly, and the credit that bounds both.

Invariant: the bytes held here (out of order, in an unfinished message, or in messages that the
application has not taken) never exceed the credit granted beyond what it has taken; a remote side
that sends more breaks the protocol.
"""

import enum
from collections import deque

from protocol.errors import RemoteProtocolError
from protocol.peers.session_frames import (
    FRAME_COST_BYTES,
    MAX_ACK_RANGES,
    MAX_STREAM_MESSAGE_BYTES,
    Data,
    Stream,
    StreamAck,
)

INITIAL_CREDIT_BYTES = 1280 * 1024
"""The credit that every sender has at the start, whatever the window is: a largest message. A hello
promises it before it is known how the other side goes on."""


class Arrival(enum.Enum):
    """What a frame turned out to be."""

    IN_ORDER = "in order"
    AHEAD = "ahead"
    """Others before it are missing."""
    DUPLICATE = "duplicate"


class ReceiveStream:
    """Data frames in, messages out: each once, in order, whatever the paths did.

    >>> stream = ReceiveStream(Stream.CONTROL, INITIAL_CREDIT_BYTES)
    >>> def part(number, text, *, last):
    ...     return Data(Stream.CONTROL, number, number == 0, last, memoryview(text))
    >>> stream.receive(part(1, b"morning", last=True)), stream.take()
    (<Arrival.AHEAD: 'ahead'>, None)
    >>> stream.receive(part(0, b"good ", last=False)), stream.take()
    (<Arrival.IN_ORDER: 'in order'>, b'good morning')
    """

    def __init__(self, stream: Stream, window_bytes: int) -> None:
        self._stream = stream
        self._max_message_bytes = MAX_STREAM_MESSAGE_BYTES[stream]
        self.window_bytes = window_bytes
        """How much is granted beyond what was taken; at least the initial credit."""
        self._granted_bytes = INITIAL_CREDIT_BYTES
        self._taken_bytes = 0
        self._held_bytes = 0
        """Cost of all frames that have arrived and whose message was not taken yet."""
        self._next_sequence = 0
        self._ahead: dict[int, Data] = {}
        self._parts: list[memoryview] = []
        self._parts_bytes = 0
        self._parts_cost_bytes = 0
        self._messages: deque[tuple[bytes, int]] = deque()

    def receive(self, frame: Data) -> Arrival:
        """Take in a frame.

        Raises :class:`RemoteProtocolError` when it goes beyond the credit, or when fragments do not
        make up a message of allowed size.
        """
        sequence = frame.sequence
        if sequence < self._next_sequence or sequence in self._ahead:
            return Arrival.DUPLICATE
        cost_bytes = frame.cost_bytes
        open_bytes = self._granted_bytes - self._taken_bytes - self._held_bytes
        missing_before = sequence - self._next_sequence - len(self._ahead)
        if cost_bytes + missing_before * FRAME_COST_BYTES > open_bytes:
            raise RemoteProtocolError(
                f"credit overrun: {self._stream.name.lower()} frame {sequence} of {cost_bytes}"
                f" bytes, frame {self._next_sequence} expected, {open_bytes} bytes of credit left"
            )
        self._held_bytes += cost_bytes
        if sequence != self._next_sequence:
            self._ahead[sequence] = frame
            return Arrival.AHEAD
        self._deliver(frame)
        while self._ahead and (following := self._ahead.pop(self._next_sequence, None)) is not None:
            self._deliver(following)
        return Arrival.IN_ORDER

    def take(self) -> bytes | None:
        """The next message, whose bytes become credit again; None if none is complete."""
        if not self._messages:
            return None
        message, cost_bytes = self._messages.popleft()
        self._held_bytes -= cost_bytes
        self._taken_bytes += cost_bytes
        return message

    def grant_is_due(self) -> bool:
        """Whether so much was taken since the last :meth:`grant` that the sender should know."""
        return self._ungranted_bytes() >= self.window_bytes // 4

    def grant(self) -> None:
        """Give what was taken back as credit, as far as the window allows."""
        self._granted_bytes += max(0, self._ungranted_bytes())

    def so_far(self) -> StreamAck:
        """What has arrived, and what is granted."""
        return StreamAck(
            next_sequence=self._next_sequence,
            credit_bytes=self._granted_bytes,
            received=self._ranges_ahead(),
        )

    def _ungranted_bytes(self) -> int:
        return self._taken_bytes + self.window_bytes - self._granted_bytes

    def _deliver(self, frame: Data) -> None:
        self._next_sequence += 1
        if frame.first is bool(self._parts):
            raise RemoteProtocolError(
                f"{self._stream.name.lower()} frame {frame.sequence}"
                f" {'starts a message within another' if frame.first else 'continues no message'}"
            )
        self._parts.append(frame.payload)
        self._parts_bytes += len(frame.payload)
        self._parts_cost_bytes += frame.cost_bytes
        if self._parts_bytes > self._max_message_bytes:
            raise RemoteProtocolError(
                f"{self._stream.name.lower()} message of more than {self._max_message_bytes} bytes"
            )
        if frame.last:
            self._messages.append((b"".join(self._parts), self._parts_cost_bytes))
            self._parts = []
            self._parts_bytes = self._parts_cost_bytes = 0

    def _ranges_ahead(self) -> tuple[tuple[int, int], ...]:
        ranges: list[tuple[int, int]] = []
        for sequence in sorted(self._ahead):
            if ranges and ranges[-1][1] == sequence:
                ranges[-1] = (ranges[-1][0], sequence + 1)
            elif len(ranges) == MAX_ACK_RANGES:
                break
            else:
                ranges.append((sequence, sequence + 1))
        return tuple(ranges)
