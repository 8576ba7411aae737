"""The session of a pair of peers: every message once and in order, above any number of paths.

How it works stands in ``daemon/net/session/__init__.py``, its states in ``states.py``.

Invariants: nothing here grows without bound whatever the remote side sends; after a
:class:`RemoteProtocolError` the owner throws the session away, since the two sides no longer agree
about each other.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

from daemon.net.session.attached_path import HEARTBEAT_S, PathSet
from daemon.net.session.events import (
    ActivePathChanged,
    BulkRoom,
    Event,
    MessageReceived,
    PathFailed,
    PeerDown,
    PeerUp,
    SessionExpired,
    SessionReset,
)
from daemon.net.session.liveness import Liveness
from daemon.net.session.states import TRANSITIONS, Cause, SessionState
from daemon.net.session.streams import SessionLimits, Streams
from protocol.errors import RemoteProtocolError, TransportError
from protocol.peers.hello import NO_EPOCH, ResumePoint
from protocol.peers.session_frames import (
    MAX_FRAME_BYTES,
    MAX_STREAM_MESSAGE_BYTES,
    Ack,
    Data,
    Ping,
    Pong,
    Stream,
    decode_frame,
    encode_frame,
)

SUSPENDED_S = 3.0
"""If nothing was called for so long although a timer is always set, this process did not run."""
KEPT_S = 120.0
"""How long a session without a usable path is kept for a resume."""
BLOCKED_RETRY_S = 0.01
_MAX_ANSWERED_PINGS = 32
_MAX_RETIRED_EPOCHS = 16


class StaleEpochError(TransportError):
    """The hello is of an epoch that another one has replaced already."""


@dataclass(frozen=True, slots=True)
class OutgoingFrame:
    """A frame to be sent over a path now."""

    path_id: int
    data: bytes
    stream: Stream | None
    """The stream of a data frame; None for all others, which nobody misses if the path refuses
    them."""
    ping: int | None = None


class Session:
    """One side of a session. ``now`` is monotonic seconds, in all methods."""

    def __init__(self, *, own_epoch: bytes, limits: SessionLimits, now: float) -> None:
        self.own_epoch = own_epoch
        self.state = SessionState.NEW
        self._liveness = Liveness(now)
        self._limits = limits
        self._remote_epoch = NO_EPOCH
        self._retired_epochs: deque[bytes] = deque(maxlen=_MAX_RETIRED_EPOCHS)
        self._paths = PathSet()
        self._streams = Streams(limits)
        self._answers: deque[OutgoingFrame] = deque()
        self._events: deque[Event] = deque()
        self._now = now
        self._waiting_since = now
        self._heartbeat_at = now

    @property
    def is_live(self) -> bool:
        """Whether the peer was heard a moment ago."""
        return self._liveness.is_live

    # Paths

    @property
    def active_path(self) -> int | None:
        """The path over which frames go now."""
        return None if self._paths.active is None else self._paths.active.path_id

    def is_usable(self, path_id: int, now: float) -> bool:
        """Whether the path is there and was heard a moment ago."""
        path = self._paths.get(path_id)
        return path is not None and path.is_usable(now)

    def rtt_s(self, path_id: int) -> float | None:
        """The path's smoothed round trip, once measured."""
        path = self._paths.get(path_id)
        return None if path is None else path.rtt_s

    def resume_point(self, remote_epoch: bytes) -> ResumePoint:
        """What a hello tells the remote process of that epoch about where to go on."""
        # If it is another process than the one that this session is with, it begins anew.
        same = remote_epoch == self._remote_epoch
        streams = self._streams if same else Streams(self._limits)
        return streams.resume_point(remote_epoch)

    def attach_path(
        self,
        path_id: int,
        *,
        remote_epoch: bytes,
        resume: ResumePoint,
        score: float,
        now: float,
        kind: object = None,
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        """Use a path whose hellos are exchanged; of several, the usable one of highest score, and
        for bulk others of its ``kind`` too.

        ``max_frame_bytes``: what the remote process takes.

        Raises :class:`StaleEpochError` when the remote process has been replaced by another since,
        :class:`TransportError` when this side has; :class:`RemoteProtocolError` when the resume
        point cannot be right, and then the session is to be thrown away.
        """
        self._advance(now)
        if self.state is SessionState.CLOSED:
            raise TransportError("the session has expired")
        if remote_epoch in self._retired_epochs:
            raise StaleEpochError("session epoch that was replaced by another one already")
        if resume.epoch != self.own_epoch:
            raise TransportError("the session was begun anew while the path was being made")
        if remote_epoch != self._remote_epoch:
            if self._remote_epoch != NO_EPOCH:
                self._start_over()
            self._remote_epoch = remote_epoch
        self._streams.max_frame_bytes = min(MAX_FRAME_BYTES, max_frame_bytes)
        self._paths.add(path_id, score=score, kind=kind, now=now)
        self._liveness.find_path()
        self._heard(now)
        self._choose_path(now)
        self._streams.acknowledge(resume.control, resume.bulk, now, said_at=None)
        self._streams.acks.due_at = now

    def detach_path(self, path_id: int, now: float) -> None:
        """The path is gone: what was in flight on it is sent again over another."""
        self._advance(now)
        if self._paths.remove(path_id):
            self._streams.path_gone(path_id)
            self._choose_path(now)
            self._note_pathless()

    def score_paths(self, scores: Mapping[int, float], now: float) -> None:
        """Change how much paths are preferred."""
        self._advance(now)
        for path_id, score in scores.items():
            path = self._paths.get(path_id)
            if path is not None:
                path.score = score
        self._choose_path(now)

    def use_for_bulk(self, most: int) -> None:
        """Let bulk go over so many lanes at most, the newest ones."""
        self._paths.most_for_bulk = most

    # The application

    def room_bytes(self, stream: Stream) -> int:
        """How much may be queued now."""
        return self._streams.room_bytes(stream)

    @property
    def is_busy(self) -> bool:
        """Whether much bulk waits."""
        return self._streams.is_busy

    def send(self, stream: Stream, message: bytes) -> bool:
        """Queue ``message``; False if there is no room for it, or no session.

        Raises :class:`ValueError` beyond MAX_STREAM_MESSAGE_BYTES.
        """
        if len(message) > MAX_STREAM_MESSAGE_BYTES[stream]:
            raise ValueError(f"message of {len(message)} bytes for stream {stream.name}")
        if self.state in (SessionState.NEW, SessionState.CLOSED):
            return False
        return self._streams.offer(stream, message)

    @property
    def arrived_bytes(self) -> int:
        """How much bulk of this side's is known to have arrived, since the session began."""
        return self._streams.arrived_bytes

    def set_bulk_limits(self, *, window_bytes: int, queue_bytes: int) -> None:
        """Change how much bulk this session may hold from now on; credit once given stays given."""
        self._limits = replace(
            self._limits, bulk_window_bytes=window_bytes, bulk_queue_bytes=queue_bytes
        )
        self._streams.set_bulk_limits(window_bytes=window_bytes, queue_bytes=queue_bytes)

    def next_event(self) -> Event | None:
        """What happened; None if there is nothing more to tell. To be drained after each call.

        A message that is taken out this way is credit for the remote side again.
        """
        if self._events:
            return self._events.popleft()
        taken = self._streams.take(self._now)
        if taken is not None:
            return MessageReceived(*taken)
        return BulkRoom() if self._streams.found_bulk_room() else None

    # Frames

    def receive_frame(self, path_id: int, data: bytes | memoryview, now: float) -> None:
        """Take in a frame that came over ``path_id``, any but hello and close.

        Raises :class:`RemoteProtocolError`.
        """
        self._advance(now)
        path = self._paths.get(path_id)
        if path is None:
            return  # It was detached while the frame was on its way up.
        match decode_frame(data):
            case Data() as frame:
                self._streams.receive(frame, now)
            case Ack(control=control, bulk=bulk, said_at_us=said_at_us):
                self._streams.acknowledge(control, bulk, now, said_at=said_at_us / 1e6)
            case Ping(number=number):
                if len(self._answers) < 2 * _MAX_ANSWERED_PINGS:
                    self._answer(path_id, number)
            case Pong(number=number):
                sent_at = path.receive_pong(number, now)
                if sent_at is not None:
                    self._streams.ping_answered(path_id, sent_at)
            case other:
                raise RemoteProtocolError(f"unexpected {type(other).__name__.lower()} frame")
        was_usable = path.is_usable(now)
        path.heard_at = now
        self._heard(now)
        if not was_usable:
            self._choose_path(now)

    def next_frame(self, now: float) -> OutgoingFrame | None:
        """The next frame to send; None if there is none now. To be drained after each call."""
        self._advance(now)
        if self._answers:
            return self._answers.popleft()
        ping = self._paths.take_due_ping(now)
        if ping is not None:
            path_id, number = ping
            return OutgoingFrame(path_id, encode_frame(Ping(number)), None, number)
        if not self._paths.lanes:
            return None
        first = self._paths.for_control(now)
        control_id = first.path_id if now >= first.blocked_until else None
        if control_id is not None and self._streams.acks.is_due(now):
            return OutgoingFrame(control_id, encode_frame(self._streams.take_ack(now)), None)
        lanes = self._paths.for_bulk(now)
        bulk_ids = [lane.path_id for lane in lanes if now >= lane.blocked_until]
        taken = self._streams.next_frame(control_id, bulk_ids, now)
        if taken is None:
            return None
        path_id, stream, data = taken
        return OutgoingFrame(path_id, data, stream)

    def frame_refused(self, frame: OutgoingFrame, now: float) -> None:
        """The path did not take ``frame``, which :meth:`next_frame` gave last: try again soon."""
        path = self._paths.get(frame.path_id)
        if path is not None:
            path.refuse(now + BLOCKED_RETRY_S, frame.ping)
        if frame.stream is not None:
            self._streams.take_back_last(frame.stream)
        else:
            self._streams.acks.due_at = now
            # No answer to a ping goes without the word on what has arrived.
            self._answers = deque(one for one in self._answers if one.path_id != frame.path_id)

    def path_writable(self, path_id: int) -> None:
        """The path takes frames again, sooner than thought."""
        path = self._paths.get(path_id)
        if path is not None:
            path.blocked_until = 0.0

    # Time

    def deadline(self) -> float | None:
        """When to call :meth:`handle_timer` next; None: never."""
        if self.state in (SessionState.NEW, SessionState.CLOSED):
            return None
        deadlines = [self._heartbeat_at]
        changes = (self._liveness.down_at, self._paths.next_change_at())
        deadlines += [at for at in changes if at is not None]
        lanes = self._paths.lanes
        if lanes:
            ack_at = self._streams.acks.due_at
            deadlines += [at for lane in lanes if (at := lane.blocked_until) > self._now]
            if ack_at is not None:
                deadlines.append(max(ack_at, self._paths.for_control(self._now).blocked_until))
        return min(deadlines)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self._advance(now)
        if self.state in (SessionState.NEW, SessionState.CLOSED):
            return
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + HEARTBEAT_S
            self._paths.ping_all()
        for path in [path for path in self._paths if path.has_failed(now)]:
            self._fail_path(path.path_id, "silent for 10 s")
        self._choose_path(now)
        down_reason = self._liveness.down_reason(now)
        if down_reason is not None:
            self._events.append(PeerDown(down_reason))
        if self._paths.active is None and now >= self._waiting_since + KEPT_S:
            self._expire()

    # Inside

    def _answer(self, path_id: int, ping: int) -> None:
        """First say over the same path what has arrived: nothing overtakes there, so what the other
        side sent before that ping and does not see named then is lost."""
        ack = encode_frame(self._streams.take_ack(self._now))
        self._answers.append(OutgoingFrame(path_id, ack, None))
        self._answers.append(OutgoingFrame(path_id, encode_frame(Pong(ping)), None))

    def _advance(self, now: float) -> None:
        if now - self._now > SUSPENDED_S and self.state is not SessionState.NEW:
            # This process did not run (SIGSTOP, a suspended machine): what seems silence of others
            # is its own. Their clocks start again; whoever is really gone is noticed a bit later.
            self._paths.restart_clocks(now)
            self._liveness.restart_clocks(now)
        self._now = max(self._now, now)

    def _heard(self, now: float) -> None:
        if self._liveness.hear(now):
            self._events.append(PeerUp())

    def _choose_path(self, now: float) -> None:
        before = self._paths.active
        changed = self._paths.choose(now)
        # The only path may be slow: it delivers yet what it was given, once it is heard again.
        if self._paths.active is not None:
            for path in self._paths:
                if not path.is_usable(now):
                    self._streams.path_lost(path.path_id)
        if not changed:
            return
        self._streams.use_paths([lane.path_id for lane in self._paths.lanes])
        active = self._paths.active
        if active is before:
            return
        if active is None:
            self._waiting_since = now
        self._enter(Cause.NO_PATH if active is None else Cause.PATH_CHOSEN)
        self._streams.acks.due_at = now
        self._events.append(ActivePathChanged(self.active_path))

    def _enter(self, cause: Cause) -> None:
        self.state = TRANSITIONS[self.state, cause]

    def _start_over(self) -> None:
        self._enter(Cause.REMOTE_RESTARTED)
        self._retired_epochs.append(self._remote_epoch)
        self._fail_all_paths("superseded: the peer restarted")
        self._streams = Streams(self._limits)
        self._events.append(SessionReset())
        if self._liveness.end():
            self._events.append(PeerDown("restarted"))

    def _expire(self) -> None:
        self._enter(Cause.KEPT_LONG_ENOUGH)
        self._fail_all_paths("the session has expired")
        self._streams = Streams(self._limits)
        self._events.append(SessionExpired())

    def _fail_all_paths(self, reason: str) -> None:
        for path in list(self._paths):
            self._fail_path(path.path_id, reason)
        self._paths.lanes = ()
        self._answers.clear()

    def _fail_path(self, path_id: int, reason: str) -> None:
        self._paths.remove(path_id)
        self._streams.path_gone(path_id)
        self._note_pathless()
        self._events.append(PathFailed(path_id, reason))

    def _note_pathless(self) -> None:
        if self._paths.is_empty:
            self._liveness.lose_paths(self._now)
