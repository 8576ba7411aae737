"""CURVE keys: the X25519 pair by which ZeroMQ encrypts, and by which a connection is known.

>>> keys = CurveKeys.from_secret(bytes(32))
>>> keys.public_z85
b'fxERSn6LHg6!4!qu+m-(f-Q<1UF!=7)u0-ysJ-^F'
>>> key_from_z85(keys.public_z85.decode()) == keys.public
True
>>> key_to_z85(b"too short")
Traceback (most recent call last):
ValueError: CURVE key of 9 bytes, 32 expected
"""

from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from zmq.utils import z85

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """A CURVE key pair, as raw 32-byte halves. The secret half is never shown."""

    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> "CurveKeys":
        """A new pair from the system's randomness."""
        return cls.from_secret(X25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def from_secret(cls, secret: bytes) -> "CurveKeys":
        """The pair whose secret half is ``secret`` (32 bytes)."""
        key = X25519PrivateKey.from_private_bytes(secret)
        return cls(key.public_key().public_bytes_raw(), secret)

    @property
    def public_z85(self) -> bytes:
        """The public half as ZeroMQ's options take it."""
        return key_to_z85(self.public)

    @property
    def secret_z85(self) -> bytes:
        """The secret half as ZeroMQ's options take it; never log it."""
        return bytes(z85.encode(self.secret))


def key_to_z85(key: bytes) -> bytes:
    """32 bytes as the 40 characters of Z85 (ZeroMQ RFC 32) that ZeroMQ's options take."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"CURVE key of {len(key)} bytes, {KEY_BYTES} expected")
    return bytes(z85.encode(key))


@lru_cache(maxsize=16384)
def key_from_z85(text: str) -> bytes:
    """The key that :func:`key_to_z85` wrote. Cached: it is needed for each message received."""
    return bytes(z85.decode(text))
