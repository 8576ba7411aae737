"""The TLS certificate of an identity: self-signed, and nothing in it but the identity's key.

Invariants: an identity has exactly one certificate (fixed names, serial number derived from the
key, valid 2000 to 9999 so that no clock matters, deterministic signature); a peer's certificate is
accepted only if it is byte for byte of that form and its key is the peer id that was expected. So a
pinned certificate is as good as a pinned key, and no field of it needs judging.

>>> alice, bob = Identity(bytes(32)), Identity(bytes([1] * 32))
>>> certificate = make_certificate(alice)
>>> check_certificate(certificate, alice.peer_id)
>>> check_certificate(certificate, bob.peer_id)
Traceback (most recent call last):
protocol.errors.VerificationError: certificate of rke... expected, got one of hnvcp...
"""

import datetime
import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from protocol.errors import VerificationError
from protocol.identity import (
    KEY_BYTES,
    Identity,
    PeerId,
    peer_id_of,
    public_key_of,
    verify_signature,
)

MAX_CERTIFICATE_BYTES = 512

_ED25519_KEY = bytes.fromhex("302a300506032b6570032100")
"""RFC 8410: what stands before the 32 bytes of an Ed25519 public key."""
_SIGNATURE_BYTES = 64
_NOT_BEFORE = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


def make_certificate(identity: Identity) -> bytes:
    """The certificate (DER) of ``identity``; the same each time."""
    key = Ed25519PrivateKey.from_private_bytes(identity.secret)
    return _certificate(identity.public_key, key).public_bytes(Encoding.DER)


def certificate_pem(identity: Identity) -> bytes:
    """The same as PEM."""
    return x509.load_der_x509_certificate(make_certificate(identity)).public_bytes(Encoding.PEM)


def certificate_digest(certificate: bytes) -> bytes:
    """SHA-256 over the DER: the fingerprint that is compared and shown."""
    return hashlib.sha256(certificate).digest()


def check_certificate(certificate: bytes, peer_id: PeerId) -> None:
    """Return if ``certificate`` (DER) is the one of ``peer_id``.

    It is compared, never parsed. Raises :class:`VerificationError`: naming both peers when it is
    another's.
    """
    _, marker, rest = certificate.partition(_ED25519_KEY)
    if not marker or len(rest) < KEY_BYTES or len(certificate) > MAX_CERTIFICATE_BYTES:
        raise VerificationError(f"{len(certificate)} bytes that are no certificate of p2pd's form")
    claimed = rest[:KEY_BYTES]
    if claimed != public_key_of(peer_id):
        raise VerificationError(
            f"certificate of {peer_id} expected, got one of {peer_id_of(claimed)}"
            f" (SHA-256 {certificate_digest(certificate).hex()}):"
            " someone stands in between, or the peer has a new identity"
        )
    # All but the signature follows from the key, so one made with a throw-away key shows it.
    expected = _certificate(claimed, Ed25519PrivateKey.from_private_bytes(bytes(KEY_BYTES)))
    if expected.public_bytes(Encoding.DER)[:-_SIGNATURE_BYTES] != certificate[:-_SIGNATURE_BYTES]:
        raise VerificationError(f"certificate of {peer_id} is not of the form that p2pd makes")
    verify_signature(claimed, certificate[-_SIGNATURE_BYTES:], expected.tbs_certificate_bytes)


def _certificate(public_key: bytes, signer: Ed25519PrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, peer_id_of(public_key))])
    serial = int.from_bytes(hashlib.sha256(b"p2pd certificate\x00" + public_key).digest()[:16])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(Ed25519PublicKey.from_public_bytes(public_key))
        .serial_number(serial)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .sign(signer, None)
    )
