"""Both streams of a session, both directions: what begins anew when the remote process restarts."""

from collections.abc import Sequence
from dataclasses import dataclass

from daemon.net.session.ack_timer import AckTimer
from daemon.net.session.in_flight_limit import InFlightLimit
from daemon.net.session.receive_stream import ReceiveStream
from daemon.net.session.send_stream import NOTHING, SendStream
from protocol.peers.hello import ResumePoint
from protocol.peers.session_frames import (
    DATA_HEADER_BYTES,
    MAX_BULK_BYTES,
    SMALL_FRAME_BYTES,
    Ack,
    Data,
    Stream,
    StreamAck,
)

MUCH_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How much memory a session may take, per direction and stream."""

    control_window_bytes: int = 2 << 20
    control_queue_bytes: int = 2 << 20
    bulk_window_bytes: int = 4 << 20
    bulk_queue_bytes: int = 4 << 20


class Streams:
    """Control before bulk: in what is sent, and in what is given to the application."""

    def __init__(self, limits: SessionLimits) -> None:
        self._send = {
            Stream.CONTROL: SendStream(Stream.CONTROL, limits.control_queue_bytes),
            Stream.BULK: SendStream(Stream.BULK, limits.bulk_queue_bytes),
        }
        self._receive = {
            Stream.CONTROL: ReceiveStream(Stream.CONTROL, limits.control_window_bytes),
            Stream.BULK: ReceiveStream(Stream.BULK, limits.bulk_window_bytes),
        }
        self._limits: dict[int, InFlightLimit] = {}
        """How much bulk may be in flight on each path that was ever used and is not gone."""
        self._lanes: Sequence[int] = ()
        """The paths that are used now."""
        self.acks = AckTimer()
        self.max_frame_bytes = SMALL_FRAME_BYTES
        """The largest that the other side takes."""
        self._bulk_was_full = False

    # Sending

    def room_bytes(self, stream: Stream) -> int:
        """How much may be queued now."""
        return self._send[stream].room_bytes

    def offer(self, stream: Stream, message: bytes) -> bool:
        """Queue ``message``; False if there is no room for it."""
        taken = self._send[stream].offer(message)
        if stream is Stream.BULK and self.room_bytes(Stream.BULK) < MAX_BULK_BYTES:
            self._bulk_was_full = True
        return taken

    @property
    def is_busy(self) -> bool:
        """Whether much bulk waits, or more than half of what may: to be sent, or for word that it
        has arrived."""
        bulk = self._send[Stream.BULK]
        much_bytes = min(MUCH_BYTES, bulk.queue_bytes // 2)
        return bulk.room_bytes < max(MAX_BULK_BYTES, bulk.queue_bytes - much_bytes)

    def found_bulk_room(self) -> bool:
        """Whether, since last asked, room for a largest bulk message came back."""
        found = self._bulk_was_full and self.room_bytes(Stream.BULK) >= MAX_BULK_BYTES
        if found:
            self._bulk_was_full = False
        return found

    def next_frame(
        self, control_id: int | None, bulk_ids: Sequence[int], now: float
    ) -> tuple[int, Stream, bytes] | None:
        """The next data frame to send, and over which path: control over that one, bulk over the
        one whose limit has most left."""
        if control_id is not None:
            data = self._cut(Stream.CONTROL, control_id, now)
            if data is not None:
                return control_id, Stream.CONTROL, data
        path_id = min(bulk_ids, key=self._fullness, default=None)
        if path_id is None or self._fullness(path_id) >= 1:
            return None
        data = self._cut(Stream.BULK, path_id, now)
        return None if data is None else (path_id, Stream.BULK, data)

    def _cut(self, stream: Stream, path_id: int, now: float) -> bytes | None:
        frame_bytes = min(self.max_frame_bytes, self._limits[path_id].frame_bytes)
        return self._send[stream].next_frame(path_id, now, frame_bytes - DATA_HEADER_BYTES)

    def _fullness(self, path_id: int) -> float:
        return self._send[Stream.BULK].in_flight_on(path_id) / self._limits[path_id].limit_bytes

    def take_back_last(self, stream: Stream) -> None:
        """The path did not take the frame that :meth:`next_frame` just gave."""
        self._send[stream].take_back_last()

    @property
    def arrived_bytes(self) -> int:
        """How much bulk is known to have arrived so far."""
        return self._send[Stream.BULK].arrived_bytes

    def acknowledge(
        self, control: StreamAck, bulk: StreamAck, now: float, said_at: float | None
    ) -> None:
        """Let go of what has arrived. ``said_at``: when that was said, by the other side's clock;
        None for what a hello tells, from which nothing is measured: the path may be another one.

        Raises :class:`RemoteProtocolError`.
        """
        self._send[Stream.CONTROL].acknowledge(control, now, self._lanes)
        sender = self._send[Stream.BULK]
        in_flight = {path_id: sender.in_flight_on(path_id) for path_id in self._limits}
        arrived = sender.acknowledge(bulk, now, self._lanes)
        if said_at is not None:
            for path_id, limit in self._limits.items():
                limit.acknowledged(arrived.get(path_id, NOTHING), in_flight[path_id], now, said_at)

    def use_paths(self, path_ids: Sequence[int]) -> None:
        """Frames go over these paths from now on."""
        self._lanes = path_ids
        for path_id in path_ids:
            self._limits.setdefault(path_id, InFlightLimit())

    def path_lost(self, path_id: int) -> None:
        """Send again what is in flight on that path."""
        for send in self._send.values():
            send.path_lost(path_id)

    def path_gone(self, path_id: int) -> None:
        """The same, for one that does not come back."""
        self.path_lost(path_id)
        self._limits.pop(path_id, None)

    def ping_answered(self, path_id: int, sent_at: float) -> None:
        """Send again what went over that path before that ping and has not arrived."""
        for send in self._send.values():
            send.ping_answered(path_id, sent_at)

    # Receiving

    def receive(self, frame: Data, now: float) -> None:
        """Take in a frame. Raises :class:`RemoteProtocolError`."""
        arrival = self._receive[frame.stream].receive(frame)
        self.acks.frame_arrived(arrival, len(frame.payload), now)

    def take(self, now: float) -> tuple[Stream, bytes] | None:
        """The next whole message."""
        for stream, receive in self._receive.items():
            message = receive.take()
            if message is not None:
                if receive.grant_is_due():
                    self.acks.due_at = now
                return stream, message
        return None

    def take_ack(self, now: float) -> Ack:
        """An acknowledgement of everything, to be sent now."""
        self.acks.sent()
        for receive in self._receive.values():
            receive.grant()
        return Ack(*self._so_far(), round(now * 1e6))

    def _so_far(self) -> tuple[StreamAck, StreamAck]:
        return self._receive[Stream.CONTROL].so_far(), self._receive[Stream.BULK].so_far()

    def resume_point(self, epoch: bytes) -> ResumePoint:
        """For a hello: from where the remote process of that epoch may go on. It grants nothing,
        since nobody knows yet whether a path comes of it, or how large the window is then."""
        control, bulk = self._so_far()
        return ResumePoint(epoch=epoch, control=control, bulk=bulk)

    def set_bulk_limits(self, *, window_bytes: int, queue_bytes: int) -> None:
        """Change how much bulk is held from now on; credit once given stays given."""
        self._receive[Stream.BULK].window_bytes = window_bytes
        self._send[Stream.BULK].queue_bytes = queue_bytes
