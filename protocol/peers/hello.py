"""The hello: the first frame both ways on each new path, by which two peers recognize each other.

Invariants:

- The signature covers the path's channel binding (what only its two ends share, for example both
  CURVE keys) and the role, so that a hello is of no use on any other channel, and none when it is
  sent back to its signer.
- It counts only once it repeats the nonce that its reader drew for this very path: then the signer
  is there now, and neither a recorded hello nor a late one of a process that died is believed.
- The peer record inside is signed by the same peer. Whether the peer may take part
  (protocol/statements/admission.py) is for the caller to check with the proof in the record.

>>> from protocol.statements.peer_record import PeerRecord, seal_record
>>> alice, bob, swarm = Identity(bytes(32)), Identity(bytes([1] * 32)), bytes(32)
>>> record = seal_record(
...     alice, PeerRecord(bytes(32), (), "", True), swarm=swarm, sequence=1, now_ms=0)
>>> nothing_yet = ResumePoint(NO_EPOCH, StreamAck(0, 0, ()), StreamAck(0, 0, ()))
>>> payload = HelloPayload(b"both CURVE keys", Role.INITIATOR, bytes(EPOCH_BYTES),
...     bytes(NONCE_BYTES), NO_NONCE, False, nothing_yet, record)
>>> raw = seal_hello(alice, payload, swarm=swarm, sequence=2, audience=bob.peer_id)
>>> expect = dict(swarm=swarm, reader=bob.peer_id, expected=None, role=Role.RESPONDER, now_ms=0)
>>> open_hello(raw, channel_binding=b"both CURVE keys", **expect).peer_id == alice.peer_id
True
>>> open_hello(raw, channel_binding=b"two other keys", **expect)
Traceback (most recent call last):
protocol.errors.VerificationError: hello of hnvcp... is bound to another channel
"""

import enum
from dataclasses import dataclass

from protocol.codec import Message, decode, encode
from protocol.envelope import Domain, open_envelope, seal_envelope
from protocol.errors import VerificationError
from protocol.identity import Identity, PeerId
from protocol.peers.session_frames import SMALL_FRAME_BYTES, StreamAck
from protocol.statements.peer_record import MAX_RECORD_BYTES, VerifiedRecord, open_record

MAX_HELLO_BYTES = MAX_RECORD_BYTES + 4096
NONCE_BYTES = 16
NO_NONCE = b""
EPOCH_BYTES = 8
NO_EPOCH = b""


class Role(enum.StrEnum):
    """The end of a path that a peer is."""

    INITIATOR = "initiator"
    RESPONDER = "responder"

    @property
    def other(self) -> "Role":
        """The role of the other end."""
        return Role.RESPONDER if self is Role.INITIATOR else Role.INITIATOR


class ResumePoint(Message):
    """The point from which the other side goes on, in the session with its ``epoch``."""

    epoch: bytes
    """The reader's session epoch that this is about; empty while it is not known."""
    control: StreamAck
    bulk: StreamAck


class HelloPayload(Message):
    """The payload of a hello."""

    channel_binding: bytes
    role: Role
    """The signer's role."""
    epoch: bytes
    """The epoch of the signer's session with the reader: drawn anew when the signer's process
    starts."""
    nonce: bytes
    """Drawn by the signer for this path."""
    echo: bytes
    """The reader's nonce for this path; empty while the signer has not seen it."""
    confirmed: bool
    """Whether the signer has seen its own nonce repeated: it needs no other hello."""
    resume: ResumePoint
    record: bytes
    """The signer's peer record, in its envelope; its admission proof is in there."""
    max_frame_bytes: int = SMALL_FRAME_BYTES
    """The largest frame that the signer takes."""


@dataclass(frozen=True, slots=True)
class VerifiedHello:
    """A hello whose signatures hold, meant for this reader and this channel."""

    peer_id: PeerId
    payload: HelloPayload
    record: VerifiedRecord


def seal_hello(
    identity: Identity,
    payload: HelloPayload,
    *,
    swarm: bytes,
    sequence: int,
    audience: PeerId | None,
) -> bytes:
    """The signed hello. It does not expire: the nonces say better than a clock that it is fresh."""
    return seal_envelope(
        identity,
        Domain.HELLO,
        encode(payload),
        swarm=swarm,
        sequence=sequence,
        audience=audience,
    )


def open_hello(
    raw: bytes,
    *,
    swarm: bytes,
    reader: PeerId,
    expected: PeerId | None,
    channel_binding: bytes,
    role: Role,
    now_ms: int,
) -> VerifiedHello:
    """The verified hello in ``raw``. ``role`` is the reader's, ``expected`` who was called, if any.

    Raises :class:`RemoteProtocolError` when malformed or of another protocol version, and
    :class:`VerificationError` when it is another peer's, another swarm's, another channel's, or a
    signature does not hold.
    """
    message = open_envelope(
        raw,
        Domain.HELLO,
        now_ms=now_ms,
        swarm=swarm,
        audience=reader,
        signer=expected,
        max_bytes=MAX_HELLO_BYTES,
    )
    payload = decode(message.payload, HelloPayload, max_bytes=MAX_HELLO_BYTES)
    if message.signer == reader:
        raise VerificationError("hello of this peer itself")
    if payload.channel_binding != channel_binding:
        raise VerificationError(f"hello of {message.signer} is bound to another channel")
    if payload.role is role:
        raise VerificationError(f"hello of {message.signer} in the reader's own role {role}")
    if len(payload.nonce) != NONCE_BYTES or len(payload.epoch) != EPOCH_BYTES:
        raise VerificationError(f"hello of {message.signer} without nonce or epoch")
    if payload.max_frame_bytes < SMALL_FRAME_BYTES:
        raise VerificationError(
            f"hello of {message.signer}, which takes frames of {payload.max_frame_bytes} bytes only"
        )
    record = open_record(payload.record, swarm=swarm, now_ms=now_ms)
    if record.peer_id != message.signer:
        raise VerificationError(f"hello of {message.signer} with the record of {record.peer_id}")
    return VerifiedHello(peer_id=message.signer, payload=payload, record=record)
