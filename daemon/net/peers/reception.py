"""All paths arrive here. Hellos are exchanged; a path whose hello is believed goes on to its link.

Invariants:

- A frame that comes over a path before its hello is confirmed goes nowhere.
- Paths that come from outside and say no hello have a small budget of their own. So they displace
  neither sessions nor what this peer itself opens.
- A peer that breaks the protocol loses its session and all its paths, and is not talked to for a
  while.
- Each path is closed with a reason that the other side is told.
"""

import asyncio
import logging
import secrets

from daemon.net.path_kind import PathKind
from daemon.net.paths.path import Path
from daemon.net.peers.book import PeerBook
from daemon.net.peers.path_end import PathEnd
from daemon.net.peers.remote_peer import RemotePeer
from daemon.net.refusals import UNKNOWN_PEER, Refusals
from daemon.net.session.handshake import Greeter, close_code
from daemon.net.traffic import TrafficCounter
from protocol.errors import P2PDError, RemoteProtocolError
from protocol.identity import short
from protocol.peers.hello import NONCE_BYTES, Role
from protocol.peers.session_frames import (
    Close,
    CloseCode,
    Hello,
    decode_frame,
    is_data_frame,
)
from transport.border import refused
from transport.clock import Clock

MAX_PATHS = 320
"""A ZeroMQ context has 1,023 sockets, and a path that this peer makes takes three."""
MAX_GREETING = 32
"""Paths that others opened and on which nobody has said a believable hello so far. Beyond, the
oldest is closed: a crowd that says nothing delays one that says hello at once by nothing."""
REFUSED_WAIT_S = 30.0
"""A peer that refused this one, or broke the protocol, is left alone for so long."""

_LASTING = {CloseCode.DENIED, CloseCode.VERSION, CloseCode.IDENTITY, CloseCode.PROTOCOL}
"""Trying again at once would be refused again."""

_log = logging.getLogger("p2pd.reception")


class Reception:
    """The owner of all paths (:class:`PathOwner`).

    Example (daemon/net/network.py)::

        self._reception = Reception(Greeter(own_record, self._book), self._book, clock, refusals)
    """

    def __init__(self, greeter: Greeter, links: PeerBook, clock: Clock, refusals: Refusals) -> None:
        self.traffic = TrafficCounter()
        self._greeter = greeter
        self._links = links
        self._clock = clock
        self._refusals = refusals
        self._ends: dict[Path, PathEnd] = {}
        self._received: dict[PathEnd, None] = {}
        """The ends over which data frames came that are taken in and not acted on yet."""
        self._count = 0

    def path_opened(self, path: Path) -> None:
        """See :class:`PathOwner`."""
        if self._came_from_outside(path):
            self._make_room_to_greet()
        if len(self._ends) >= MAX_PATHS:
            path.close("too many paths")
            return
        self._count += 1
        end = self._ends[path] = PathEnd(
            self._count,
            path,
            self._greeter,
            self._clock,
            nonce=secrets.token_bytes(NONCE_BYTES),
            traffic=self.traffic,
            owner=self,
        )
        end.start()

    def path_received(self, path: Path, frame: bytes | memoryview) -> None:
        """See :class:`PathOwner`."""
        end = self._ends.get(path)
        if end is None:
            return
        end.note_received(frame)
        is_data = is_data_frame(frame)
        if not is_data:
            self._flush_received()  # The end of a path does not overtake what came over it.
        try:
            self._take_in(end, frame)
        except Exception as error:
            self.end_failed(end, refused(error))
            return
        if not is_data:
            self._flush(end)
        elif end not in self._received:
            # Once for all that a socket has: it costs as much as to take in some frames.
            if not self._received:
                asyncio.get_running_loop().call_soon(self._flush_received)
            self._received[end] = None

    def path_writable(self, path: Path) -> None:
        """See :class:`PathOwner`."""
        end = self._ends.get(path)
        link = None if end is None else self._links.get(end.peer_id)
        if end is not None and link is not None:
            link.writable(end)

    def path_lost(self, path: Path, reason: str) -> None:
        """See :class:`PathOwner`."""
        end = self._ends.get(path)
        if end is not None:
            end.lost()
            self._detach(end, reason)

    def close(self) -> None:
        """Close all paths: this peer stops."""
        for end in list(self._ends.values()):
            end.close(CloseCode.LEAVING, "the peer stops")

    def _flush_received(self) -> None:
        """Act on the data frames that have come."""
        received, self._received = self._received, {}
        for end in received:
            self._flush(end)

    def _flush(self, end: PathEnd) -> None:
        link = self._links.get(end.peer_id)
        if link is not None:
            try:
                link.flush()
            except Exception as error:
                self.end_failed(end, refused(error))

    def _came_from_outside(self, path: Path) -> bool:
        """Whether the other side opened it without anything that this side asked for."""
        opened_here = path.kind in (PathKind.PUNCHED, PathKind.ICE)  # By both, after signals.
        return path.channel.role is Role.RESPONDER and not opened_here

    def _make_room_to_greet(self) -> None:
        greeting = [
            end
            for end in self._ends.values()
            if end.peer_id is None and self._came_from_outside(end.path)
        ]
        if len(greeting) >= MAX_GREETING:
            oldest = min(greeting, key=lambda end: end.number)
            oldest.close(CloseCode.BUSY, "too many others came that say no hello")

    def _take_in(self, end: PathEnd, frame: bytes | memoryview) -> None:
        message = None if is_data_frame(frame) else decode_frame(frame)
        link = self._links.get(end.peer_id)
        match message:
            case Hello(envelope=envelope):
                self._greet(end, envelope)
            case Close():
                self._closed_by_remote(end, message)
            case _ if link is not None:
                link.receive(end, frame)

    def _greet(self, end: PathEnd, envelope: bytes) -> None:
        hello = end.receive_hello(envelope)
        link = self._links.get(end.peer_id)
        if hello is not None and link is not None:
            link.attach(end, hello)

    def end_failed(self, end: PathEnd, error: P2PDError) -> None:
        """See :class:`EndOwner`. Close the path for what came over it, or failed to."""
        peer_id = end.peer_id or end.path.channel.expected
        code = close_code(error)
        link = self._links.get(peer_id)
        if isinstance(error, RemoteProtocolError):
            self._refusals.add(peer_id or UNKNOWN_PEER, f"path-{code.value}", error)
            if link is not None and end.peer_id is not None:
                link.hold_off(self._clock.monotonic() + REFUSED_WAIT_S)
                link.end_session(code, str(error))
        end.close(code, str(error))
        self._detach(end, str(error))

    def _closed_by_remote(self, end: PathEnd, close: Close) -> None:
        reason = ascii(close.text)[1:-1]
        peer_id = end.peer_id or end.path.channel.expected
        end.end(f"refused: {reason}" if close.code in _LASTING else reason)
        self._detach(end, reason)
        link = self._links.get(peer_id)
        if link is None:
            return
        if close.code in _LASTING:
            self._leave_alone(link, end, reason)
        if end.peer_id is not None and close.code == CloseCode.LEAVING:
            link.end_session(CloseCode.PATH, "left", in_good_order=True)
            self._links.left(end.peer_id)
        elif end.peer_id is not None and close.code == CloseCode.UNNEEDED:
            link.end_session(CloseCode.PATH, reason, in_good_order=True)
        elif end.peer_id is not None and close.code == CloseCode.STALE_EPOCH:
            link.end_session(CloseCode.PATH, "the peer knows a newer session")

    def _leave_alone(self, link: RemotePeer, end: PathEnd, reason: str) -> None:
        link.wish.not_before = self._clock.monotonic() + REFUSED_WAIT_S
        link.wish.note_failure(end.path.kind, f"refused: {reason}")
        if link.wish.refusal != reason:  # Once, not at each attempt.
            link.wish.refusal = reason
            _log.warning("peer %s refuses this one: %s", short(link.peer_id), reason)

    def _detach(self, end: PathEnd, reason: str) -> None:
        link = self._links.get(end.peer_id)
        if link is not None:
            link.detach(end, reason)

    def end_over(self, end: PathEnd) -> None:
        """See :class:`EndOwner`."""
        self._ends.pop(end.path, None)
