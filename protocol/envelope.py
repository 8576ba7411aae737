"""The signed envelope around everything that a peer says about itself, its swarm or its model.

Invariants:

- The signature covers the raw bytes of domain, version, signer, swarm, audience, expiry, sequence
  and payload, and a fixed prefix; it is checked before the payload is looked at.
- A statement made for one domain, swarm or audience cannot be used in another: the opener says
  which it expects.
- :func:`open_envelope` is the only maker of a :class:`VerifiedMessage`, so code that takes one
  cannot be handed unverified bytes by mistake.

>>> alice, swarm = Identity(bytes(32)), bytes(32)
>>> raw = seal_envelope(alice, Domain.SIGNAL, b"come here", swarm=swarm, sequence=1)
>>> message = open_envelope(raw, Domain.SIGNAL, now_ms=0, swarm=swarm)
>>> message.payload, message.signer == alice.peer_id
(b'come here', True)
>>> open_envelope(raw, Domain.UPDATE, now_ms=0, swarm=swarm)
Traceback (most recent call last):
protocol.errors.VerificationError: statement of kind 'update' expected, got 'signal'
"""

import enum
from dataclasses import InitVar, dataclass

from protocol.codec import MAX_MESSAGE_BYTES, Message, decode, encode
from protocol.errors import RemoteProtocolError, VerificationError, VersionError
from protocol.identity import Identity, PeerId, peer_id_of, public_key_of, verify_signature

PROTOCOL_VERSION = 1
EVERYONE = b""
NEVER_MS = 0

_SIGNATURE_PREFIX = b"p2pd signed envelope\x00"


class Domain(enum.StrEnum):
    """The kind of statement that an envelope holds."""

    SWARM = "swarm"
    TOKEN_USE = "token-use"
    PEER_RECORD = "peer-record"
    HELLO = "hello"
    SIGNAL = "signal"
    UPDATE = "update"
    AGREEMENT = "agreement"
    STATE = "state"
    EVALUATION = "evaluation"


class _Body(Message):
    domain: str
    version: int
    signer: bytes
    swarm: bytes
    audience: bytes
    expires_ms: int
    sequence: int
    payload: bytes


class _Envelope(Message):
    body: bytes
    signature: bytes


_MAKER = object()


@dataclass(frozen=True, slots=True)
class VerifiedMessage:
    """An opened envelope: ``signer`` did say ``payload``. Made by :func:`open_envelope` only."""

    domain: Domain
    signer: PeerId
    swarm: bytes
    expires_ms: int
    sequence: int
    payload: bytes
    raw: bytes
    """The whole envelope as it came, to be shown to others."""
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("a VerifiedMessage comes from open_envelope and from nowhere else")


def seal_envelope(
    identity: Identity,
    domain: Domain,
    payload: bytes,
    *,
    swarm: bytes,
    sequence: int,
    audience: PeerId | None = None,
    expires_ms: int = NEVER_MS,
) -> bytes:
    """``payload`` signed by ``identity``: the bytes of an envelope.

    ``audience`` is the peer that it is meant for, None for everyone. ``expires_ms`` is Unix time in
    milliseconds, ``NEVER_MS`` for statements that are superseded rather than expire.
    """
    body = encode(
        _Body(
            domain=domain.value,
            version=PROTOCOL_VERSION,
            signer=identity.public_key,
            swarm=swarm,
            audience=EVERYONE if audience is None else public_key_of(audience),
            expires_ms=expires_ms,
            sequence=sequence,
            payload=payload,
        )
    )
    return encode(_Envelope(body=body, signature=identity.sign(_SIGNATURE_PREFIX + body)))


def claimed_signer(raw: bytes, *, max_bytes: int = MAX_MESSAGE_BYTES) -> PeerId | None:
    """The signer that ``raw`` names, unchecked; None if it is no envelope.

    Use it only to decide what to verify next: checking a signature takes a hundred times as
    long.
    """
    try:
        envelope = decode(raw, _Envelope, max_bytes=max_bytes)
        return peer_id_of(decode(envelope.body, _Body, max_bytes=max_bytes).signer)
    except RemoteProtocolError:
        return None


def open_envelope(
    raw: bytes,
    domain: Domain,
    *,
    now_ms: int,
    swarm: bytes | None,
    audience: PeerId | None = None,
    signer: PeerId | None = None,
    max_bytes: int = MAX_MESSAGE_BYTES,
) -> VerifiedMessage:
    """The verified content of ``raw``, which has to be of ``domain`` and for ``swarm``.

    ``swarm=None`` accepts any (a swarm statement is what defines one); ``audience`` is the reader:
    an envelope to everyone passes, one to somebody else does not; ``signer`` demands a certain one.

    Raises :class:`RemoteProtocolError` when it is no envelope, :class:`VersionError` when it is of
    another protocol version, and :class:`VerificationError` when signature, domain, swarm,
    audience, signer or expiry is wrong.
    """
    envelope = decode(raw, _Envelope, max_bytes=max_bytes)
    body = decode(envelope.body, _Body, max_bytes=max_bytes)
    if body.version != PROTOCOL_VERSION:
        raise VersionError(
            f"protocol version {PROTOCOL_VERSION} expected, got {body.version}:"
            " the older side needs an upgrade"
        )
    verify_signature(body.signer, envelope.signature, _SIGNATURE_PREFIX + envelope.body)
    claimed = peer_id_of(body.signer)
    if body.domain != domain.value:
        raise VerificationError(f"statement of kind {domain.value!r} expected, got {body.domain!r}")
    if swarm is not None and body.swarm != swarm:
        raise VerificationError(
            f"for swarm {body.swarm.hex()[:16]}, not for {swarm.hex()[:16]}, signed by {claimed}"
        )
    if body.audience != EVERYONE and (audience is None or body.audience != public_key_of(audience)):
        raise VerificationError(f"meant for another reader, signed by {claimed}")
    if signer is not None and claimed != signer:
        raise VerificationError(f"signed by {claimed}, not by {signer}")
    if body.expires_ms != NEVER_MS and now_ms >= body.expires_ms:
        raise VerificationError(
            f"expired {(now_ms - body.expires_ms) / 1000:.0f} s ago, signed by {claimed}"
        )
    return VerifiedMessage(
        domain=domain,
        signer=claimed,
        swarm=body.swarm,
        expires_ms=body.expires_ms,
        sequence=body.sequence,
        payload=body.payload,
        raw=bytes(raw),
        maker=_MAKER,
    )
