"""The hellos on one path, from its opening to the moment when the session may use it. Sans-IO.

::

    initiator                         responder
        │ ── hello (nonce A) ───────────▶ │
        │ ◀─── hello (nonce B, echo A) ── │
    CONFIRMED ── hello (echo B) ────────▶ CONFIRMED

A hello that does not repeat this side's nonce proves who signed it, but not that it was signed now,
so it is answered and nothing else is done for it. Paths may lose frames: hellos are repeated until
both sides are confirmed. Where both sides may speak first, both do; the exchange is the same.
"""

import enum
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from daemon.net.own_record import OwnRecord
from daemon.net.session.session import StaleEpochError
from protocol.errors import (
    P2PDError,
    RemoteProtocolError,
    TransportError,
    VerificationError,
    VersionError,
)
from protocol.identity import PeerId
from protocol.peers.hello import (
    NO_EPOCH,
    NO_NONCE,
    HelloPayload,
    ResumePoint,
    Role,
    VerifiedHello,
    open_hello,
    seal_hello,
)
from protocol.peers.session_frames import MAX_FRAME_BYTES, CloseCode, Hello, encode_frame
from protocol.statements.admission import DeniedError

REPEAT_S = 1.0
GIVE_UP_S = 5.0
MAX_HELLOS = 16
"""On one path; each costs two signatures to check."""


class HandshakeState(enum.Enum):
    """The state of a handshake."""

    GREETING = "greeting"
    CONFIRMED = "confirmed"
    """The other side repeated this side's nonce: its hello counts."""


class SessionView(Protocol):
    """What a hello says of the session with its reader."""

    @property
    def own_epoch(self) -> bytes:
        """This side's epoch."""

    def resume_point(self, remote_epoch: bytes) -> ResumePoint:
        """What the remote process of that epoch is told about where to go on."""


class BusyError(TransportError):
    """There is no room for another peer; later there may be."""


class Doorkeeper(Protocol):
    """Who decides whom this peer talks to."""

    def admit(self, hello: VerifiedHello) -> object:
        """Raises :class:`RemoteProtocolError` or :class:`BusyError` unless the signer may take
        part; afterwards :meth:`session_of` knows it."""

    def met(self, hello: VerifiedHello) -> None:
        """The signer of this one is there now. Raises as :meth:`admit`."""

    def session_of(self, peer_id: PeerId) -> SessionView | None:
        """The session with a peer that was admitted, and is not forgotten."""


@dataclass(frozen=True, slots=True)
class Greeter:
    """What this peer says of itself on every path, and who decides about others."""

    own_record: OwnRecord
    """With the admission proof in it."""
    door: Doorkeeper


@dataclass(frozen=True, slots=True)
class Channel:
    """What is known of a path before any hello."""

    role: Role
    """This peer's role."""
    binding: bytes
    """What only the two ends of this path share."""
    expected: PeerId | None
    """The peer to which the path was made; None: any peer may come."""
    remote_curve_key: bytes | None
    """The key that the path proves the other end to have, if it is of a kind that does."""


class PathHandshake:
    """One side of the hellos on one path.

    Example (daemon/net/peers/path_end.py)::

        self._handshake.handle_timer(now)
        while (frame := self._handshake.next_frame()) is not None:
            self.send(frame)
        hello = self._handshake.receive(envelope, self._clock.monotonic())
    """

    def __init__(self, greeter: Greeter, channel: Channel, *, nonce: bytes, now: float) -> None:
        """``nonce`` is random and for this path alone."""
        self.state = HandshakeState.GREETING
        self._greeter = greeter
        self._channel = channel
        self._nonce = nonce
        self._peer = channel.expected
        self._remote_nonce = NO_NONCE
        self._remote_epoch = NO_EPOCH
        self._hellos = 0
        self._repeat_at = now
        self._give_up_at = now + GIVE_UP_S
        self._outgoing: deque[bytes] = deque()

    def receive(self, envelope: bytes, now: float) -> VerifiedHello | None:
        """Take in a hello; the result is the one that confirms the other side, once.

        Raises :class:`RemoteProtocolError` (:func:`close_code` says which kind) for one that is not
        to be believed, :class:`TransportError` for one of another session than the path is for.
        """
        self._hellos += 1
        if self._hellos > MAX_HELLOS:
            raise RemoteProtocolError(f"more than {MAX_HELLOS} hellos on one path")
        hello = open_hello(
            envelope,
            swarm=self._greeter.own_record.swarm_id,
            reader=self._greeter.own_record.identity.peer_id,
            expected=self._peer,
            channel_binding=self._channel.binding,
            role=self._channel.role,
            now_ms=self._greeter.own_record.clock.now_ms(),
        )
        self._check(hello)
        self._peer = hello.peer_id
        self._remote_nonce = hello.payload.nonce
        self._remote_epoch = hello.payload.epoch
        confirms = hello.payload.echo == self._nonce and self.state is not HandshakeState.CONFIRMED
        if confirms:
            self._greeter.door.met(hello)
            self.state = HandshakeState.CONFIRMED
        if not hello.payload.confirmed:
            self._say_hello(hello.peer_id, now)
        return hello if confirms else None

    def next_frame(self) -> bytes | None:
        """The next frame to send; None if there is none now."""
        return self._outgoing.popleft() if self._outgoing else None

    def deadline(self) -> float | None:
        """When to call :meth:`handle_timer` next; None: never."""
        if self.state is HandshakeState.CONFIRMED:
            return None
        return self._give_up_at if self._peer is None else min(self._repeat_at, self._give_up_at)

    def handle_timer(self, now: float) -> None:
        """Say hello (again). Raises :class:`TransportError` when it was said in vain."""
        if self.state is HandshakeState.CONFIRMED:
            return
        if now >= self._give_up_at:
            raise TransportError(f"no hello within {GIVE_UP_S:.0f} s")
        if self._peer is not None and now >= self._repeat_at:
            self._say_hello(self._peer, now)

    def _check(self, hello: VerifiedHello) -> None:
        key = self._channel.remote_curve_key
        if key is not None and hello.record.record.curve_key != key:
            raise VerificationError(
                f"the record of {hello.peer_id} names another CURVE key than the path has"
            )
        if self._remote_nonce not in (NO_NONCE, hello.payload.nonce):
            raise RemoteProtocolError(f"{hello.peer_id} began anew on an old path")
        if self.state is HandshakeState.CONFIRMED and hello.payload.epoch != self._remote_epoch:
            # What is sent on this path is numbered for the session that it was confirmed for.
            raise TransportError("the other side began its session anew while the path was made")
        self._greeter.door.admit(hello)

    def _say_hello(self, peer_id: PeerId, now: float) -> None:
        self._repeat_at = now + REPEAT_S
        own = self._greeter.own_record
        session = self._greeter.door.session_of(peer_id)
        if session is None:
            return  # The peer was forgotten meanwhile; the path will be given up.
        envelope = seal_hello(
            own.identity,
            HelloPayload(
                channel_binding=self._channel.binding,
                role=self._channel.role,
                epoch=session.own_epoch,
                nonce=self._nonce,
                echo=self._remote_nonce,
                confirmed=self.state is HandshakeState.CONFIRMED,
                resume=session.resume_point(self._remote_epoch),
                record=own.signed(),
                max_frame_bytes=MAX_FRAME_BYTES,
            ),
            swarm=own.swarm_id,
            sequence=own.sequence.take(),
            audience=peer_id,
        )
        self._outgoing.append(encode_frame(Hello(envelope)))


def close_code(error: P2PDError) -> CloseCode:
    """What to tell the other side when ``error`` ended a path.

    >>> close_code(DeniedError("its invite has expired"))
    <CloseCode.DENIED: 'denied'>
    """
    match error:
        case DeniedError():
            return CloseCode.DENIED
        case VersionError():
            return CloseCode.VERSION
        case StaleEpochError():
            return CloseCode.STALE_EPOCH
        case VerificationError():
            return CloseCode.IDENTITY
        case BusyError():
            return CloseCode.BUSY
        case TransportError():
            return CloseCode.PATH
        case _:
            return CloseCode.PROTOCOL
