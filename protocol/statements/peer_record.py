"""What a peer says of itself: where it is and with which keys it can be talked to.

>>> alice, swarm = Identity(bytes(32)), bytes(32)
>>> record = PeerRecord(bytes(32), ("192.0.2.1:5555",), name="laptop", trains=True)
>>> raw = seal_record(alice, record, swarm=swarm, sequence=1, now_ms=0)
>>> open_record(raw, swarm=swarm, now_ms=1_000).record.addresses
('192.0.2.1:5555',)
>>> open_record(raw, swarm=swarm, now_ms=RECORD_LIFETIME_MS + 60_000)
Traceback (most recent call last):
protocol.errors.VerificationError: expired 60 s ago, signed by hnvcp...
"""

from dataclasses import dataclass

from protocol.codec import Message, decode, encode
from protocol.envelope import Domain, VerifiedMessage, open_envelope, seal_envelope
from protocol.errors import ConfigError, VerificationError
from protocol.identity import KEY_BYTES, Identity, PeerId
from protocol.statements.admission import MAX_PROOF_BYTES, NO_PROOF
from protocol.statements.nat_summary import NatSummary, check_nat_summary
from protocol.uri import HostPort, ServerUri

MAX_RECORD_BYTES = 8 * 1024
MAX_ADDRESSES = 16
MAX_RELAYS = 4
MAX_RELAY_URIS = 2 * MAX_RELAYS
"""A relay may have several addresses."""
MAX_NAME_LENGTH = 64
MAX_INSTANCE_BYTES = 16
NO_INSTANCE = b""
RECORD_LIFETIME_MS = 24 * 3600 * 1000


class PeerRecord(Message):
    """The payload of a peer record."""

    curve_key: bytes
    """Raw CURVE (X25519) public key, 32 bytes: ZAP admits it, sealed signals are sealed for it."""
    addresses: tuple[str, ...]
    """``HOST:PORT`` under which the peer may be dialled, best first; may be empty."""
    name: str
    """The owner's name for it; shown escaped, never trusted."""
    trains: bool
    """False for an observer, which takes part in connections but never in rounds."""
    relays: tuple[str, ...] = ()
    """``p2p://KEY@HOST:PORT`` of the relays at which the peer can be called."""
    nat: NatSummary = NatSummary()
    """What its network does to connections, as far as it found out."""
    proof: bytes = NO_PROOF
    """The peer's admission proof (protocol/statements/admission.py); empty where it needs none. It
    travels in the record, so that whoever reads one can tell whether its peer is in before doing
    anything."""
    instance: bytes = NO_INSTANCE
    """Drawn by each process anew: two processes with one identity differ in it."""


@dataclass(frozen=True, slots=True)
class VerifiedRecord:
    """A record whose signature was checked, and who signed it."""

    peer_id: PeerId
    swarm: bytes
    sequence: int
    record: PeerRecord
    raw: bytes


def seal_record(
    identity: Identity, record: PeerRecord, *, swarm: bytes, sequence: int, now_ms: int
) -> bytes:
    """The signed record, valid for :data:`RECORD_LIFETIME_MS`."""
    return seal_envelope(
        identity,
        Domain.PEER_RECORD,
        encode(record),
        swarm=swarm,
        sequence=sequence,
        expires_ms=now_ms + RECORD_LIFETIME_MS,
    )


def record_of(message: VerifiedMessage) -> VerifiedRecord:
    """The record inside an opened envelope of domain ``peer-record``.

    Raises :class:`RemoteProtocolError` when it is malformed or beyond its bounds.
    """
    record = decode(message.payload, PeerRecord, max_bytes=MAX_RECORD_BYTES)
    if len(record.curve_key) != KEY_BYTES:
        raise VerificationError(f"CURVE key of {len(record.curve_key)} bytes in a peer record")
    if len(record.addresses) > MAX_ADDRESSES:
        raise VerificationError(f"{len(record.addresses)} addresses in a peer record")
    if len(record.name) > MAX_NAME_LENGTH:
        raise VerificationError(f"name of {len(record.name)} characters in a peer record")
    if len(record.relays) > MAX_RELAY_URIS:
        raise VerificationError(f"{len(record.relays)} relay URIs in a peer record")
    if len(record.instance) > MAX_INSTANCE_BYTES:
        raise VerificationError(f"instance of {len(record.instance)} bytes in a peer record")
    if len(record.proof) > MAX_PROOF_BYTES:
        raise VerificationError(f"admission proof of {len(record.proof)} bytes in a peer record")
    check_nat_summary(record.nat)
    try:
        for address in record.addresses:
            HostPort.parse(address)
        for uri in record.relays:
            ServerUri.parse(uri)
    except ConfigError as error:
        raise VerificationError(f"address in a peer record: {error}") from error
    return VerifiedRecord(message.signer, message.swarm, message.sequence, record, message.raw)


def open_record(raw: bytes, *, swarm: bytes | None, now_ms: int) -> VerifiedRecord:
    """The verified record in ``raw``; errors as of :func:`protocol.envelope.open_envelope`."""
    return record_of(
        open_envelope(
            raw, Domain.PEER_RECORD, now_ms=now_ms, swarm=swarm, max_bytes=MAX_RECORD_BYTES
        )
    )
