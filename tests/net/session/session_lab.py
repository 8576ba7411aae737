"""Two sessions joined through an in-memory network with a clock that is moved by hand.

Its paths lose, double, delay and reorder frames, and can be cut without either side being told.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from daemon.net.session import Event, MessageReceived, PathFailed, Session, SessionLimits
from protocol.peers.session_frames import MAX_FRAME_BYTES, Stream


@dataclass
class Wire:
    """How one path treats frames."""

    delay_s: float = 0.01
    jitter_s: float = 0.0
    """More than none reorders."""
    loss: float = 0.0
    doubling: float = 0.0
    bytes_per_s: float = 0.0
    """0: without limit."""
    refusal: float = 0.0
    """How often the path does not take a frame."""
    is_cut: bool = False
    busy_until: dict[int, float] = field(default_factory=lambda: {0: 0.0, 1: 0.0})
    carried: int = 0
    carried_bytes: int = 0
    largest: int = 0
    """Of the frames that were carried, in bytes."""


class Side:
    """One of the two, and all that its owner saw."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events: list[Event] = []
        self.messages: dict[Stream, list[bytes]] = {Stream.CONTROL: [], Stream.BULK: []}
        self.takes_messages = True


class Lab:
    """The network and the clock."""

    def __init__(self, seed: int = 0, limits: SessionLimits | None = None) -> None:
        self.now = 100.0
        self.limits = limits or SessionLimits()
        self.sides = (self.start(b"epoch--A"), self.start(b"epoch--B"))
        self.wires: dict[int, Wire] = {}
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []

    def start(self, epoch: bytes) -> Side:
        return Side(Session(own_epoch=epoch, limits=self.limits, now=self.now))

    def restart(self, index: int, epoch: bytes) -> Side:
        """A new process in place of side ``index``."""
        fresh = self.start(epoch)
        self.sides = (fresh, self.sides[1]) if index == 0 else (self.sides[0], fresh)
        return fresh

    def attach(
        self,
        wire: Wire | None = None,
        *,
        score: float = 1.0,
        lag_s: float = 0.0,
        takes: int = MAX_FRAME_BYTES,
        kind: object = None,
    ) -> int:
        """A new path, its hellos exchanged; side 1 notices ``lag_s`` later than side 0.

        ``takes``: the largest frame that side 1 says to take.
        """
        path_id = next(self._numbers)
        self.wires[path_id] = wire or Wire()
        first, second = (side.session for side in self.sides)
        to_first = second.resume_point(first.own_epoch)
        to_second = first.resume_point(second.own_epoch)
        first.attach_path(
            path_id,
            remote_epoch=second.own_epoch,
            resume=to_first,
            score=score,
            kind=kind,
            now=self.now,
            max_frame_bytes=takes,
        )

        def attach_second() -> None:
            second.attach_path(
                path_id,
                remote_epoch=first.own_epoch,
                resume=to_second,
                score=score,
                kind=kind,
                now=self.now,
            )

        if lag_s:
            self.at(self.now + lag_s, attach_second)
        else:
            attach_second()
        self.pump()
        return path_id

    def detach(self, path_id: int, index: int) -> None:
        self.sides[index].session.detach_path(path_id, self.now)
        self.pump()

    def send(self, index: int, stream: Stream, message: bytes) -> bool:
        taken = self.sides[index].session.send(stream, message)
        self.pump()
        return taken

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._numbers), action))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        turns = 0
        while (following := self._next_time()) <= end:
            turns = turns + 1 if following <= self.now else 0
            assert turns < 100_000, "a deadline that does not go away"
            self.now = max(self.now, following)
            while self._heap and self._heap[0][0] <= self.now:
                heapq.heappop(self._heap)[2]()
            for side in self.sides:
                deadline = side.session.deadline()
                if deadline is not None and deadline <= self.now:
                    side.session.handle_timer(self.now)
            self.pump()
        self.now = end

    def pump(self) -> None:
        for index, side in enumerate(self.sides):
            self._take_events(side)
            while (frame := side.session.next_frame(self.now)) is not None:
                if self._random.random() < self.wires[frame.path_id].refusal:
                    side.session.frame_refused(frame, self.now)
                else:
                    self._carry(index, frame.path_id, frame.data)
            self._take_events(side)

    def _take_events(self, side: Side) -> None:
        while side.takes_messages and (event := side.session.next_event()) is not None:
            if isinstance(event, MessageReceived):
                side.messages[event.stream].append(event.message)
            else:
                side.events.append(event)
            if isinstance(event, PathFailed):
                self.wires[event.path_id].is_cut = True

    def _next_time(self) -> float:
        deadlines = [at for side in self.sides if (at := side.session.deadline()) is not None]
        return min([*deadlines, *(entry[0] for entry in self._heap[:1])], default=float("inf"))

    def _carry(self, index: int, path_id: int, data: bytes) -> None:
        wire = self.wires[path_id]
        if wire.is_cut or self._random.random() < wire.loss:
            return
        wire.carried += 1
        wire.carried_bytes += len(data)
        wire.largest = max(wire.largest, len(data))
        leaves_at = self.now
        if wire.bytes_per_s:
            leaves_at = max(self.now, wire.busy_until[index]) + len(data) / wire.bytes_per_s
            wire.busy_until[index] = leaves_at
        for _ in range(2 if self._random.random() < wire.doubling else 1):
            arrives_at = leaves_at + wire.delay_s + self._random.random() * wire.jitter_s
            self.at(arrives_at, lambda: self._arrive(1 - index, path_id, data))

    def _arrive(self, index: int, path_id: int, data: bytes) -> None:
        if not self.wires[path_id].is_cut:
            self.sides[index].session.receive_frame(path_id, data, self.now)
            self.pump()
