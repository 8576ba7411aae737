"""One other peer: its session, the paths that the session uses, and the timer that drives it."""

import asyncio
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from daemon.net.path_kind import PathKind
from daemon.net.paths.path import PathWish, host_of
from daemon.net.peers.lanes import Lanes, lane_kind
from daemon.net.peers.observer import PeerObserver
from daemon.net.peers.path_end import PathEnd
from daemon.net.peers.path_preference import PathPreference
from daemon.net.peers.path_score import BEST_FIRST
from daemon.net.peers.peer_status import LinkStatus, kind_without_path, path_reason, shown_address
from daemon.net.session import (
    ActivePathChanged,
    BulkRoom,
    Event,
    MessageReceived,
    PathFailed,
    PeerDown,
    PeerUp,
    Session,
    SessionExpired,
    SessionLimits,
    SessionReset,
    SessionState,
)
from daemon.net.traffic import TrafficCounter
from protocol.identity import PeerId, short
from protocol.peers.hello import EPOCH_BYTES, ResumePoint, VerifiedHello
from protocol.peers.lane_messages import encode_lanes
from protocol.peers.session_frames import CloseCode, Stream
from protocol.statements.peer_record import VerifiedRecord
from transport.clock import Clock

_log = logging.getLogger("p2pd.link")


class RemotePeer:
    """The session with one peer, begun anew when it is lost, for as long as the peer is known.

    Example (daemon/net/network.py)::

        return RemotePeer(me, record, SessionLimits(), self._clock, self, self.traffic)
    """

    def __init__(
        self,
        own_id: PeerId,
        record: VerifiedRecord,
        limits: SessionLimits,
        clock: Clock,
        observer: PeerObserver,
        traffic: TrafficCounter,
    ) -> None:
        self.peer_id = record.peer_id
        self.wish = PathWish(record)
        self.lanes = Lanes(self.wish, traffic)
        self._limits = limits
        self._preference = PathPreference(own_id, record.peer_id)
        self._clock = clock
        self._observer = observer
        self._ends: dict[int, PathEnd] = {}
        self._session = self._new_session()
        self._is_flushing = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._held_off_until = 0.0
        self._past_bytes_sent = self._past_bytes_received = 0
        self.was_met = False
        """Whether it has ever said a believable hello to this process."""
        self.known_since = clock.monotonic()

    # The peer

    @property
    def record(self) -> VerifiedRecord:
        """The newest that is known."""
        return self.wish.record

    @record.setter
    def record(self, record: VerifiedRecord) -> None:
        self.wish.record = record
        self.wish.notify()

    @property
    def is_live(self) -> bool:
        """Whether there is a session, and the peer was heard of lately (daemon/net/session/)."""
        return self._session.is_live

    @property
    def has_session(self) -> bool:
        """Whether messages are taken for the peer, be it live or not."""
        return self._session.state in (SessionState.OPEN, SessionState.WAITING)

    @property
    def is_held_off(self) -> bool:
        """Whether it broke the protocol a moment ago and is not to be talked to."""
        return self._clock.monotonic() < self._held_off_until

    def hold_off(self, until: float) -> None:
        """Neither call it nor believe its hellos until then."""
        self._held_off_until = self.wish.not_before = until

    def status(self) -> LinkStatus:
        """How it stands now."""
        active = self._session.active_path
        end = None if active is None else self._ends.get(active)
        rtt_s = None if end is None else self._session.rtt_s(end.number)
        kind = kind_without_path(self.wish) if end is None else end.path.kind
        ends = self._ends.values()
        return LinkStatus(
            peer_id=self.peer_id,
            name=self.record.record.name,
            kind=kind,
            address=shown_address(
                None if end is None else end.path.remote_address, self.record.record.addresses
            ),
            reason=path_reason(
                self.wish,
                None if end is None else kind,
                pinned=self._preference.pinned,
                is_faster=self._preference.is_faster(kind),
            ),
            is_live=self.is_live,
            rtt_ms=None if rtt_s is None else rtt_s * 1000,
            bytes_sent=self._past_bytes_sent + sum(end.bytes_sent for end in ends),
            bytes_received=self._past_bytes_received + sum(end.bytes_received for end in ends),
            connections=len(self._ends_of(kind)),
        )

    # Paths

    @property
    def own_epoch(self) -> bytes:
        """This side's epoch of the session."""
        return self._session.own_epoch

    def resume_point(self, remote_epoch: bytes) -> ResumePoint:
        """See :meth:`Session.resume_point`."""
        return self._session.resume_point(remote_epoch)

    def attach(self, end: PathEnd, hello: VerifiedHello) -> None:
        """Let the session use a path; :meth:`flush` then acts on it.

        Raises what :meth:`Session.attach_path` raises.
        """
        self._session.attach_path(
            end.number,
            remote_epoch=hello.payload.epoch,
            resume=hello.payload.resume,
            score=self._preference.score(end.path),
            kind=lane_kind(end.path.kind),
            max_frame_bytes=hello.payload.max_frame_bytes,
            now=self._clock.monotonic(),
        )
        self._ends[end.number] = end
        self.was_met = True
        if end.path.kind is PathKind.DIRECT:
            self.wish.note_seen(host_of(end.path.remote_address), self._clock.monotonic())
        self.wish.failures.pop(end.path.kind, None)
        self._paths_changed()
        self._close_spare_paths(end.path.kind)

    def detach(self, end: PathEnd, reason: str) -> None:
        """The path is over, and why."""
        if self._forget(end):
            self._note_loss(end.path.kind, reason)
            self._session.detach_path(end.number, self._clock.monotonic())
            self.flush()

    def receive(self, end: PathEnd, frame: bytes | memoryview) -> None:
        """Take in a frame; :meth:`flush` then acts on it. Raises :class:`RemoteProtocolError`."""
        self._session.receive_frame(end.number, frame, self._clock.monotonic())

    def writable(self, end: PathEnd) -> None:
        """The path takes frames again."""
        self._session.path_writable(end.number)
        self.flush()

    def end_session(self, code: CloseCode, text: str, *, in_good_order: bool = False) -> None:
        """Close all paths and forget everything; the next path begins a new session.

        ``in_good_order``: one of the two stops or is banned; nobody misses what was on its way.
        """
        was_live = self.is_live
        if self.has_session and not in_good_order:
            self._log_session_lost(text)
        self._session = self._new_session()
        self._arm_timer()
        for end in list(self._ends.values()):
            self._forget(end)
            end.close(code, text)
        if was_live:
            self._tell_down(text)

    def close(self) -> None:
        """The peer is forgotten."""
        self.end_session(CloseCode.LEAVING, "this peer has no use for the session any more")
        if self._timer is not None:
            self._timer.cancel()

    @property
    def active_kind(self) -> PathKind | None:
        """The kind of the path over which frames go now."""
        active = self._session.active_path
        end = None if active is None else self._ends.get(active)
        return None if end is None else end.path.kind

    @contextmanager
    def pinned_to(self, kind: PathKind) -> Iterator[None]:
        """Send over paths of ``kind`` meanwhile, as far as there are any, however good others are.

        One at a time: nesting is the caller's error.
        """
        self._pin(kind)
        try:
            yield
        finally:
            self._pin(None)

    # The application

    def send(self, stream: Stream, message: bytes) -> bool:
        """See :meth:`Session.send`."""
        taken = self._session.send(stream, message)
        if taken:
            self.flush()
        return taken

    def room_bytes(self, stream: Stream) -> int:
        """How much may be queued now; 0 without a session."""
        return self._session.room_bytes(stream) if self.has_session else 0

    def set_bulk_limits(self, *, window_bytes: int, queue_bytes: int) -> None:
        """See :meth:`Session.set_bulk_limits`."""
        self._session.set_bulk_limits(window_bytes=window_bytes, queue_bytes=queue_bytes)

    def flush(self) -> None:
        """Tell what happened, send what there is to send, and set the timer."""
        if self._is_flushing:
            return  # Called from within, by whoever was told: the loop below goes on anyway.
        self._is_flushing = True
        try:
            while (event := self._session.next_event()) is not None or self._send_frame():
                if event is not None:
                    self._handle(event)
        finally:
            self._is_flushing = False
            self._arm_timer()

    # Inside

    def _new_session(self) -> Session:
        self.lanes.begin_anew()
        return Session(
            own_epoch=secrets.token_bytes(EPOCH_BYTES),
            limits=self._limits,
            now=self._clock.monotonic(),
        )

    def _send_frame(self) -> bool:
        now = self._clock.monotonic()
        frame = self._session.next_frame(now)
        if frame is None:
            return False
        end = self._ends.get(frame.path_id)
        if end is None or not end.send(frame.data):
            self._session.frame_refused(frame, now)
        return True

    def _handle(self, event: Event) -> None:
        match event:
            case MessageReceived(stream=stream, message=message):
                self._observer.message_received(self.peer_id, stream, message)
            case BulkRoom():
                self._observer.bulk_room_found(self.peer_id)
            case PeerUp():
                self._observer.peer_up(self.peer_id)
            case PeerDown(reason=reason):
                self._tell_down(reason)
            case PathFailed(path_id=path_id, reason=reason):
                end = self._ends.get(path_id)
                if end is not None:
                    self._forget(end)
                    self._note_loss(end.path.kind, reason)
                    end.close(CloseCode.PATH, reason)
            case ActivePathChanged(path_id=path_id):
                self._paths_changed()
                self._log_path(None if path_id is None else self._ends.get(path_id))
            case SessionReset():
                self._log_session_lost("the peer restarted")
                self.lanes.begin_anew()
            case SessionExpired():
                self._log_session_lost("there was no path for too long")
                self._session = self._new_session()

    def _log_session_lost(self, reason: str) -> None:
        # All that was on its way is lost with it: the one case in which messages are lost.
        _log.info("peer %s: a new session, since %s", short(self.peer_id), ascii(reason)[1:-1])

    def _tell_down(self, reason: str) -> None:
        _log.info("peer %s is down: %s", short(self.peer_id), ascii(reason)[1:-1])
        self._observer.peer_down(self.peer_id, reason)

    def _log_path(self, end: PathEnd | None) -> None:
        if end is None:
            _log.info("peer %s: no path", short(self.peer_id))
        else:
            kind, address = end.path.kind.value, end.path.remote_address
            _log.info("peer %s: %s path, %s", short(self.peer_id), kind, address)

    def _forget(self, end: PathEnd) -> bool:
        if self._ends.pop(end.number, None) is None:
            return False
        self._past_bytes_sent += end.bytes_sent
        self._past_bytes_received += end.bytes_received
        self._paths_changed()
        return True

    def _note_loss(self, kind: PathKind, reason: str) -> None:
        # Beside a better one it need not have failed, nor does it matter.
        at_least_as_good = BEST_FIRST[: BEST_FIRST.index(kind) + 1]
        is_missed = not any(self.wish.has(other) for other in at_least_as_good)
        if is_missed or self.wish.asks_for(kind):
            self.wish.failures.setdefault(kind, f"there was one: {reason}")

    def _paths_changed(self) -> None:
        # All silent is as good as none: what looks for paths does not wait until they are given up.
        is_reached = self._session.active_path is not None
        self.wish.paths = frozenset(end.path for end in self._ends.values() if is_reached)
        self.wish.notify()

    def _pin(self, kind: PathKind | None) -> None:
        self._preference.pinned = kind
        self._score_paths(self._clock.monotonic())
        self.flush()

    def _score_paths(self, now: float) -> None:
        scores = {end.number: self._preference.score(end.path) for end in self._ends.values()}
        self._session.score_paths(scores, now)

    def _weigh_paths(self, now: float) -> None:
        """Prefer what carries more, as far as that shows."""
        kind = self.active_kind
        alike = self._ends_of(kind)
        is_busy = self._session.is_busy
        changed = self._preference.note(
            kind,
            sum(end.bytes_sent for end in alike),
            is_busy=is_busy,
            available={end.path.kind for end in self._ends.values()},
            now=now,
        )
        if changed:
            self._score_paths(now)
        self.wish.want_besides(self._preference.wanted)
        steady = kind if self._preference.is_settled else None
        arrived = self._session.arrived_bytes
        news = self.lanes.note(steady, arrived, is_busy=is_busy, count=len(alike), now=now)
        if news is not None and self._session.send(Stream.CONTROL, encode_lanes(news)):
            self.lanes.said(news, now)
        self._session.use_for_bulk(self.lanes.bulk_lanes(steady))
        for one in BEST_FIRST:
            self._close_spare_paths(one)

    def _ends_of(self, kind: PathKind | None) -> list[PathEnd]:
        return [end for end in self._ends.values() if end.path.kind is kind]

    def _close_spare_paths(self, kind: PathKind) -> None:
        alike, now = self._ends_of(kind), self._clock.monotonic()
        usable = [end for end in alike if self._session.is_usable(end.number, now)]
        for end in self._preference.spare(alike, usable, self.wish.most(kind)):
            if self._forget(end):
                self._session.detach_path(end.number, now)
                end.close(CloseCode.PATH, "another path of the same kind is as good")

    def _arm_timer(self) -> None:
        deadline = self._session.deadline()
        if deadline is not None and self._session.is_busy:
            deadline = min(deadline, self.lanes.next_note_at)
        if self._timer is not None:
            if deadline is not None and self._timer_at <= deadline:
                return  # It comes early enough, and will be set anew then.
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer_at = deadline
            self._timer = asyncio.get_running_loop().call_later(
                max(0.0, deadline - self._clock.monotonic()), self._time_is_up
            )

    def _time_is_up(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        self._session.handle_timer(now)
        self._weigh_paths(now)
        self.flush()
