"""Sealed signals: what two peers say to each other through a rendezvous that cannot read it.

Ephemeral X25519 against the receiver's static key, HKDF-SHA256 (RFC 5869), ChaCha20-Poly1305
(RFC 8439). The nonce is zero because each key is used once: every signal has its own ephemeral key.
The receiver's X25519 key is the CURVE key in its signed record. Sealing hides; *who* speaks is
proven by the envelope of domain ``signal`` that is sealed inside.

>>> bob, eve = X25519PrivateKey.generate(), X25519PrivateKey.generate()
>>> sealed = seal_signal(bob.public_key().public_bytes_raw(), b"my address is 192.0.2.1:5555")
>>> open_signal(bob.private_bytes_raw(), sealed)
b'my address is 192.0.2.1:5555'
>>> open_signal(eve.private_bytes_raw(), sealed)
Traceback (most recent call last):
protocol.errors.VerificationError: sealed signal was not made for this peer, or changed
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocol.errors import VerificationError

MAX_SIGNAL_BYTES = 16 * 1024
KEY_BYTES = 32

_INFO = b"p2pd sealed signal v1"
_NONCE = bytes(12)


def _message_key(shared: bytes, ephemeral: bytes, receiver: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=ephemeral + receiver, info=_INFO).derive(shared)


def seal_signal(receiver_key: bytes, plaintext: bytes) -> bytes:
    """``plaintext`` readable only by the holder of ``receiver_key`` (a raw X25519 public key)."""
    ephemeral = X25519PrivateKey.generate()
    public = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(receiver_key))
    key = _message_key(shared, public, receiver_key)
    return public + ChaCha20Poly1305(key).encrypt(_NONCE, plaintext, None)


def open_signal(secret_key: bytes, sealed: bytes) -> bytes:
    """The plaintext of ``sealed``; ``secret_key`` is the receiver's raw X25519 secret.

    Raises :class:`VerificationError` when it was sealed for another key or changed on the way.
    """
    if not KEY_BYTES < len(sealed) <= MAX_SIGNAL_BYTES:
        raise VerificationError(f"sealed signal of {len(sealed)} bytes")
    public, ciphertext = sealed[:KEY_BYTES], sealed[KEY_BYTES:]
    own = X25519PrivateKey.from_private_bytes(secret_key)
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(public))
        key = _message_key(shared, public, own.public_key().public_bytes_raw())
        return ChaCha20Poly1305(key).decrypt(_NONCE, ciphertext, None)
    except (InvalidTag, ValueError) as error:
        raise VerificationError("sealed signal was not made for this peer, or changed") from error
