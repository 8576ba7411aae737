"""The sending half of a stream: queue, fragments, credit, resend buffer, loss detection.

A fragment is in one of three places: in the queue (its message is not cut yet), in flight, or lost
and to be sent again. It leaves when the other side says that it has arrived. Loss is found as in
RACK (RFC 8985): what was sent clearly before something that has arrived is lost. Paths deliver in
order or not at all, so this finds a gap as soon as anything behind it comes through, whatever path
that took. Of paths that are used together each has an order of its own, and one that is stuck is
not waited for. Where nothing was sent behind it, a ping was, and word of what had arrived comes
before its answer. There is no timeout: a slow line, or one that stands still for a while, delivers
what it was given, and what is sent again meanwhile would only wait behind that.
"""

from collections import Counter, deque
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from protocol.errors import RemoteProtocolError
from protocol.peers.session_frames import (
    FRAME_COST_BYTES,
    Stream,
    StreamAck,
    encode_data,
)

REORDER_WINDOW_S = 0.05
STUCK_S = 1.0
"""What is so much older than what came over another path waits on one that is stuck: a connection
that lost a packet and its repetition."""


@dataclass(slots=True)
class _Fragment:
    sequence: int
    first: bool
    last: bool
    payload: memoryview
    path_id: int = -1
    sent_at: float = 0.0
    transmissions: int = 0

    @property
    def cost_bytes(self) -> int:
        return len(self.payload) + FRAME_COST_BYTES


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What an acknowledgement brought."""

    cost_bytes: int
    """Newly arrived, as credit counts it."""
    sent_at: float | None
    """When the last of it was sent that was sent only once."""


NOTHING = Acknowledged(0, None)


class SendStream:
    """Messages in, data frames out, each byte kept until it is known to have arrived.

    ``queue_bytes`` bounds what is held altogether, sent or not; a message that would go beyond it
    is not taken.
    """

    def __init__(self, stream: Stream, queue_bytes: int) -> None:
        self._stream = stream
        self.queue_bytes = queue_bytes
        self._held_bytes = 0
        self._queue: deque[bytes] = deque()
        self._cut_bytes = 0
        """How much of the first queued message is in fragments already."""
        self._next_sequence = 0
        self._acknowledged = 0
        """Every fragment before this one has arrived."""
        self._in_flight: dict[int, _Fragment] = {}
        """Fragments in flight, in the order in which they were last sent."""
        self._on_path: Counter[int] = Counter()
        """The cost of what is in flight, by the path that it was sent over."""
        self.arrived_bytes = 0
        """Of messages, each counted once."""
        self._lost: dict[int, _Fragment] = {}
        self._sent_bytes = 0
        """Credit used."""
        self._credit_bytes = 0
        self._delay_s: float | None = None

    @property
    def room_bytes(self) -> int:
        """How much may be queued now."""
        return max(0, self.queue_bytes - self._held_bytes)

    def in_flight_on(self, path_id: int) -> int:
        """Cost of what was sent over the path and is neither known to have arrived nor to be
        lost."""
        return self._on_path[path_id]

    def offer(self, message: bytes) -> bool:
        """Queue ``message``; False if there is no room for it. An empty one always fits."""
        if len(message) > self.room_bytes:
            return False
        self._queue.append(message)
        self._held_bytes += len(message)
        return True

    def next_frame(self, path_id: int, now: float, most_bytes: int) -> bytes | None:
        """The next data frame to send over ``path_id``: what was lost first, then what is new.

        ``most_bytes``: of a message in a new one.
        """
        if self._lost:
            fragment = self._lost.pop(next(iter(self._lost)))
        else:
            cut = self._cut_fragment(most_bytes)
            if cut is None:
                return None
            fragment = cut
        fragment.path_id = path_id
        fragment.sent_at = now
        fragment.transmissions += 1
        self._in_flight[fragment.sequence] = fragment
        self._on_path[path_id] += fragment.cost_bytes
        return encode_data(
            self._stream,
            fragment.sequence,
            first=fragment.first,
            last=fragment.last,
            payload=fragment.payload,
        )

    def take_back_last(self) -> None:
        """The path did not take the frame that :meth:`next_frame` just gave: it is to be sent."""
        _, fragment = self._in_flight.popitem()
        self._leave_path(fragment)
        fragment.transmissions -= 1
        self._lost = {fragment.sequence: fragment, **self._lost}

    def acknowledge(
        self, ack: StreamAck, now: float, lanes: Container[int]
    ) -> Mapping[int, Acknowledged]:
        """Let go of what has arrived, and find out what is lost; what arrived, by the path that it
        was sent over. ``lanes`` are the paths that are used together now.

        Acknowledgements may come late or twice. Raises :class:`RemoteProtocolError` for one of
        something that was never sent.
        """
        self._check(ack)
        self._credit_bytes = max(self._credit_bytes, ack.credit_bytes)
        arrived: list[_Fragment] = []
        for sequence in range(self._acknowledged, ack.next_sequence):
            self._let_go(sequence, arrived)
        self._acknowledged = max(self._acknowledged, ack.next_sequence)
        for first, end in ack.received:
            for sequence in self._kept(max(first, self._acknowledged), end):
                self._let_go(sequence, arrived)
        if not arrived:
            return {}
        by_path: dict[int, list[_Fragment]] = {}
        for fragment in arrived:
            by_path.setdefault(fragment.path_id, []).append(fragment)
        acknowledged = {
            path_id: Acknowledged(
                sum(fragment.cost_bytes for fragment in fragments),
                max((one.sent_at for one in fragments if one.transmissions == 1), default=None),
            )
            for path_id, fragments in by_path.items()
        }
        for one in acknowledged.values():
            if one.sent_at is not None:
                self._measure_delay(now - one.sent_at)
        self._find_losses(by_path, now, lanes)
        return acknowledged

    def path_lost(self, path_id: int) -> None:
        """Count as lost what was last sent over this path and is not known to have arrived."""
        gone = [item for item in self._in_flight.values() if item.path_id == path_id]
        if gone:
            self._lose(gone)

    def ping_answered(self, path_id: int, sent_at: float) -> None:
        """Count as lost what went over this path before that ping and is not known to have
        arrived: who answers says first what has."""
        passed = [
            fragment
            for fragment in self._in_flight.values()
            if fragment.path_id == path_id and fragment.sent_at < sent_at
        ]
        if passed:
            self._lose(passed)

    def _check(self, ack: StreamAck) -> None:
        last = ack.next_sequence
        for first, end in ack.received:
            if not last < first < end:
                raise RemoteProtocolError(f"acknowledged range {first} to {end} after {last}")
            last = end
        if last > self._next_sequence:
            raise RemoteProtocolError(
                f"frames before {last} acknowledged, {self._next_sequence} were sent"
            )

    def _cut_fragment(self, most_bytes: int) -> _Fragment | None:
        if not self._queue:
            return None
        message = self._queue[0]
        start = self._cut_bytes
        end = min(start + most_bytes, len(message))
        cost_bytes = end - start + FRAME_COST_BYTES
        if self._sent_bytes + cost_bytes > self._credit_bytes:
            return None
        last = end == len(message)
        fragment = _Fragment(self._next_sequence, start == 0, last, memoryview(message)[start:end])
        self._next_sequence += 1
        self._sent_bytes += cost_bytes
        self._cut_bytes = 0 if last else end
        if last:
            self._queue.popleft()
        return fragment

    def _kept(self, first: int, end: int) -> Iterable[int]:
        """What may be kept of these; no more than what is kept, whatever the other side names."""
        if end - first <= len(self._in_flight) + len(self._lost):
            return range(first, end)
        return sorted(one for one in (*self._in_flight, *self._lost) if first <= one < end)

    def _let_go(self, sequence: int, arrived: list[_Fragment]) -> None:
        fragment = self._in_flight.pop(sequence, None)
        if fragment is not None:
            self._leave_path(fragment)
        else:
            fragment = self._lost.pop(sequence, None)
        if fragment is not None:
            self._held_bytes -= len(fragment.payload)
            self.arrived_bytes += len(fragment.payload)
            arrived.append(fragment)

    def _measure_delay(self, delay_s: float) -> None:
        if self._delay_s is None:
            self._delay_s = delay_s
        else:  # RFC 6298, section 2.3
            self._delay_s = 0.875 * self._delay_s + 0.125 * delay_s

    def _find_losses(
        self, arrived: Mapping[int, list[_Fragment]], now: float, lanes: Container[int]
    ) -> None:
        usual_s = self._delay_s or 0.0
        slack_s = max(REORDER_WINDOW_S, usual_s / 2)
        lost_before = {
            path_id: max(sent_at) - slack_s
            for path_id, fragments in arrived.items()
            # A fragment sent again that "arrives" sooner than possible is the first copy's doing.
            if (
                sent_at := [
                    fragment.sent_at
                    for fragment in fragments
                    if fragment.transmissions == 1 or now - fragment.sent_at > usual_s / 2
                ]
            )
        }
        if not lost_before:
            return
        newest = max(lost_before.values())
        stuck_before = newest - max(STUCK_S, 2 * usual_s)
        lost = []
        for fragment in self._in_flight.values():
            if fragment.sent_at >= newest:
                break
            path_id = fragment.path_id
            is_lane = path_id in lanes
            if fragment.sent_at < (
                max(stuck_before, lost_before.get(path_id, stuck_before)) if is_lane else newest
            ):
                lost.append(fragment)
        if lost:
            self._lose(lost)

    def _lose(self, fragments: list[_Fragment]) -> None:
        for fragment in fragments:
            del self._in_flight[fragment.sequence]
            self._leave_path(fragment)
            self._lost[fragment.sequence] = fragment
        self._lost = dict(sorted(self._lost.items()))

    def _leave_path(self, fragment: _Fragment) -> None:
        self._on_path[fragment.path_id] -= fragment.cost_bytes
        if not self._on_path[fragment.path_id]:
            del self._on_path[fragment.path_id]
