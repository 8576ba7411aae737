"""This peer's end of one path: the hellos on it, and the timer that they need."""

import asyncio
from typing import Protocol

from daemon.net.paths.path import Path
from daemon.net.session.handshake import Greeter, PathHandshake
from daemon.net.traffic import TrafficCounter
from protocol.errors import P2PDError
from protocol.identity import PeerId
from protocol.peers.hello import VerifiedHello
from protocol.peers.session_frames import CloseCode, close_frame
from transport.clock import Clock


class EndOwner(Protocol):
    """Who has the ends of paths."""

    def end_failed(self, end: "PathEnd", error: P2PDError) -> None:
        """The other side said no hello in time, or broke the protocol."""

    def end_over(self, end: "PathEnd") -> None:
        """The path is over, whoever ended it."""


class PathEnd:
    """One end of ``path``; ``number`` is what the session calls it."""

    def __init__(
        self,
        number: int,
        path: Path,
        greeter: Greeter,
        clock: Clock,
        *,
        nonce: bytes,
        traffic: TrafficCounter,
        owner: EndOwner,
    ) -> None:
        """``traffic`` counts what goes over this and all other paths."""
        self.number = number
        self.path = path
        self.peer_id: PeerId | None = None
        """The peer that is confirmed to be at the other end."""
        self.bytes_sent = 0
        self.bytes_received = 0
        self._clock = clock
        self._traffic = traffic
        self._owner = owner
        self._handshake = PathHandshake(greeter, path.channel, nonce=nonce, now=clock.monotonic())
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def start(self) -> None:
        """Say hello, if it is known to whom."""
        self._run_handshake()

    def receive_hello(self, envelope: bytes) -> VerifiedHello | None:
        """Take in a hello and answer it; the result is the one that confirms the other side, once.

        Raises :class:`RemoteProtocolError`.
        """
        hello = self._handshake.receive(envelope, self._clock.monotonic())
        self._run_handshake()
        if hello is not None:
            self.peer_id = hello.peer_id
        return hello

    def send(self, frame: bytes) -> bool:
        """Send ``frame``, unless the path does not take it."""
        if self._is_over or not self.path.send(frame):
            return False
        self.bytes_sent += len(frame)
        self._traffic.sent += len(frame)
        return True

    def note_received(self, frame: bytes | memoryview) -> None:
        """Count ``frame``, which has come over the path."""
        self.bytes_received += len(frame)
        self._traffic.received += len(frame)

    def close(self, code: CloseCode, text: str) -> None:
        """Tell the other side why, and end the path."""
        self.send(close_frame(code, text))
        self.end(text)

    def end(self, reason: str) -> None:
        """End the path without a word: the other side has ended it."""
        if not self._is_over:
            self.lost()
            self.path.close(reason)

    def lost(self) -> None:
        """The path has ended by itself."""
        if not self._is_over:
            self._is_over = True
            self._stop_timer()
            self._owner.end_over(self)

    def _run_handshake(self) -> None:
        self._stop_timer()
        now = self._clock.monotonic()
        try:
            self._handshake.handle_timer(now)
        except P2PDError as error:
            self._owner.end_failed(self, error)
            return
        while (frame := self._handshake.next_frame()) is not None:
            self.send(frame)  # If it is not taken, it is said again.
        deadline = self._handshake.deadline()
        if deadline is not None and not self._is_over:
            self._timer = asyncio.get_running_loop().call_later(
                max(0.0, deadline - now), self._run_handshake
            )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
