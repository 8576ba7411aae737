"""A peer's identity: an Ed25519 key pair. The peer id is its public half.

Invariants: a peer id is the public key itself (base32, lower case, no padding, 52 characters), so
nothing needs to map one to the other; only the daemon process ever holds an :class:`Identity`.

>>> alice = Identity(bytes(32))
>>> alice.peer_id, short(alice.peer_id)
('hnvcppgow2sc2yvdvdicu3ynonsteflxdxrehjr2ybekdc2z3iuq', 'hnvcppgo')
>>> signature = alice.sign(b"yes")
>>> verify_signature(public_key_of(alice.peer_id), signature, b"yes")
>>> verify_signature(public_key_of(alice.peer_id), signature, b"no")
Traceback (most recent call last):
protocol.errors.VerificationError: signature does not verify with key 3b6a27bcceb6a42d
"""

import base64
import binascii
from functools import lru_cache
from typing import NewType

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.errors import VerificationError

PeerId = NewType("PeerId", str)

KEY_BYTES = 32
KEY_TEXT_LENGTH = 52
REMEMBERED_KEYS = 4096
"""Spellings of keys that are kept, since each message names the same few keys again; about 1 MB."""


def key_to_text(key: bytes) -> str:
    """32 bytes as 52 characters of lower-case base32 (RFC 4648 section 6) without padding."""
    return base64.b32encode(key).decode("ascii").rstrip("=").lower()


def key_from_text(text: str) -> bytes:
    """The 32 bytes behind ``text``. Raises :class:`ValueError` unless it is their one spelling."""
    try:
        key = base64.b32decode(text.upper() + "====")
    except binascii.Error as error:
        raise ValueError(f"not a base32 key: {error}") from error
    if len(key) != KEY_BYTES or key_to_text(key) != text:
        raise ValueError(f"not a key of {KEY_TEXT_LENGTH} characters a-z, 2-7")
    return key


_spelling_of = lru_cache(REMEMBERED_KEYS)(key_to_text)
_spelt_by = lru_cache(REMEMBERED_KEYS)(key_from_text)


def peer_id_of(public_key: bytes) -> PeerId:
    """The peer id of a raw 32-byte Ed25519 public key."""
    if len(public_key) != KEY_BYTES:
        raise VerificationError(f"public key of {len(public_key)} bytes, {KEY_BYTES} expected")
    return PeerId(_spelling_of(public_key))


def public_key_of(peer_id: PeerId) -> bytes:
    """The raw 32-byte Ed25519 public key that ``peer_id`` spells."""
    try:
        return _spelt_by(peer_id)
    except ValueError as error:
        raise VerificationError(f"peer id {peer_id!r}: {error}") from error


def short(peer_id: str) -> str:
    """The first 8 characters of an id, for people to read; never for comparing."""
    return peer_id[:8]


class Identity:
    """An Ed25519 private key (RFC 8032) and what follows from it."""

    def __init__(self, secret: bytes) -> None:
        """``secret``: the 32-byte seed."""
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public_key = self._key.public_key().public_bytes_raw()
        self.peer_id = peer_id_of(self.public_key)

    @classmethod
    def generate(cls) -> "Identity":
        """A new identity from the system's randomness."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def secret(self) -> bytes:
        """The 32-byte seed, for the identity file and for invite links; never log it."""
        return self._key.private_bytes_raw()

    def private_key_pem(self) -> bytes:
        """PKCS#8 PEM without encryption, for TLS libraries that take nothing else."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature over ``data``."""
        return self._key.sign(data)

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"


def verify_signature(public_key: bytes, signature: bytes, data: bytes) -> None:
    """Return if ``signature`` is ``public_key``'s over ``data``.

    Raises :class:`VerificationError` otherwise, also for keys and signatures of a wrong size.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError) as error:
        raise VerificationError(
            f"signature does not verify with key {public_key.hex()[:16]}"
        ) from error
