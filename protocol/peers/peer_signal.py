"""A signal from one peer to another: signed by its sender, sealed for its receiver.

Invariants: the rendezvous that passes it on learns nothing but its length and its receiver; it is
of no use to anyone else, in another swarm or after :data:`SIGNAL_LIFETIME_MS`. It carries the
sender's record and in it the admission proof, so that a receiver who has never heard of the sender
can decide whether to listen, and answer. Its sender may be another process with the reader's own
identity. Whether the sender may take part, and whether this is a repetition, is for the caller to
check (daemon/net/signaling.py).

>>> from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
>>> from protocol.peers.signal_messages import TwinNotice
>>> from protocol.statements.peer_record import PeerRecord, seal_record
>>> alice, curve, swarm = Identity(bytes(32)), X25519PrivateKey.generate(), bytes(32)
>>> record = PeerRecord(curve.public_key().public_bytes_raw(), (), "", True)
>>> raw = seal_record(alice, record, swarm=swarm, sequence=1, now_ms=0)
>>> to = open_record(raw, swarm=swarm, now_ms=0)
>>> sealed = seal_peer_signal(
...     alice, SignalPayload(raw, TwinNotice()), to=to, sequence=2, now_ms=0)
>>> open_peer_signal(alice, curve.private_bytes_raw(), sealed, swarm=swarm, now_ms=0).body
TwinNotice()
"""

from dataclasses import dataclass

from protocol.codec import Message, decode, encode
from protocol.envelope import Domain, VerifiedMessage, open_envelope, seal_envelope
from protocol.errors import VerificationError
from protocol.identity import Identity
from protocol.peers.sealed_signal import MAX_SIGNAL_BYTES, open_signal, seal_signal
from protocol.peers.signal_messages import SignalBody
from protocol.statements.peer_record import MAX_RECORD_BYTES, VerifiedRecord, open_record

SIGNAL_LIFETIME_MS = 30_000


class SignalPayload(Message):
    """The payload of a signal's envelope."""

    record: bytes
    """The sender's peer record, in its envelope."""
    body: SignalBody


@dataclass(frozen=True, slots=True)
class VerifiedSignal:
    """A signal whose signatures hold, meant for its reader."""

    message: VerifiedMessage
    record: VerifiedRecord
    """The sender's record."""
    body: SignalBody


def seal_peer_signal(
    identity: Identity,
    payload: SignalPayload,
    *,
    to: VerifiedRecord,
    sequence: int,
    now_ms: int,
) -> bytes:
    """``payload`` as only ``to`` can read it. Raises :class:`VerificationError` if it is too
    long."""
    envelope = seal_envelope(
        identity,
        Domain.SIGNAL,
        encode(payload),
        swarm=to.swarm,
        sequence=sequence,
        audience=to.peer_id,
        expires_ms=now_ms + SIGNAL_LIFETIME_MS,
    )
    sealed = seal_signal(to.record.curve_key, envelope)
    if len(sealed) > MAX_SIGNAL_BYTES:
        raise VerificationError(f"signal of {len(sealed)} bytes, at most {MAX_SIGNAL_BYTES}")
    return sealed


def open_peer_signal(
    reader: Identity, curve_secret: bytes, sealed: bytes, *, swarm: bytes, now_ms: int
) -> VerifiedSignal:
    """The verified signal in ``sealed``.

    Raises :class:`RemoteProtocolError` when it is malformed or of another protocol version, and
    :class:`VerificationError` when it was sealed for another reader, has expired, or a signature
    does not hold.
    """
    message = open_envelope(
        open_signal(curve_secret, sealed),
        Domain.SIGNAL,
        now_ms=now_ms,
        swarm=swarm,
        audience=reader.peer_id,
        max_bytes=MAX_SIGNAL_BYTES,
    )
    if not now_ms < message.expires_ms <= now_ms + 2 * SIGNAL_LIFETIME_MS:
        raise VerificationError(f"signal of {message.signer} that lasts too long")
    payload = decode(message.payload, SignalPayload, max_bytes=MAX_SIGNAL_BYTES)
    if len(payload.record) > MAX_RECORD_BYTES:
        raise VerificationError(f"signal of {message.signer} with too long a record")
    record = open_record(payload.record, swarm=swarm, now_ms=now_ms)
    if record.peer_id != message.signer:
        raise VerificationError(f"signal of {message.signer} with the record of {record.peer_id}")
    return VerifiedSignal(message, record, payload.body)
