"""The TLS certificate of an identity: self-signed, and nothing in it but the identity's key.

Invariants: an identity has exactly one certificate (fixed names, serial number derived from the
key, valid 2000 to 9999 so that no clock matters, deterministic signature); a peer's certificate is
accepted only if it is byte for byte of that form and its key is the peer id that was expected. So a
pinned certificate is as good as a pinned key, and no field of it needs judging.
"""

import datetime
import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from protocol.errors import VerificationError
from protocol.identity import Identity, PeerId, peer_id_of, public_key_of

MAX_CERTIFICATE_BYTES = 512

_NOT_BEFORE = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


def make_certificate(identity: Identity) -> bytes:
    """The certificate (DER) of ``identity``; the same each time."""
    key = Ed25519PrivateKey.from_private_bytes(identity.secret)
    return _certificate(identity.public_key, key).public_bytes(Encoding.DER)


def certificate_digest(certificate: bytes) -> bytes:
    """SHA-256 over the DER: the fingerprint that is compared and shown."""
    return hashlib.sha256(certificate).digest()


def check_certificate(certificate: bytes, peer_id: PeerId) -> None:
    """Return if ``certificate`` (DER) is the one of ``peer_id``.

    Raises :class:`VerificationError`: naming both keys when it is another peer's.
    """
    if len(certificate) > MAX_CERTIFICATE_BYTES:
        raise VerificationError(f"certificate of {len(certificate)} bytes")
    try:
        found = x509.load_der_x509_certificate(certificate)
        key = found.public_key()
    except ValueError as error:
        raise VerificationError(f"malformed certificate: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise VerificationError("certificate whose key is not Ed25519")
    claimed = key.public_bytes_raw()
    if claimed != public_key_of(peer_id):
        raise VerificationError(
            f"certificate of {peer_id} expected, got one of {peer_id_of(claimed)}"
            f" (SHA-256 {certificate_digest(certificate).hex()}):"
            " someone stands in between, or the peer has a new identity"
        )
    # What is signed does not depend on who signs it, so a throw-away key yields the bytes that
    # the peer must have signed.
    expected = _certificate(claimed, Ed25519PrivateKey.from_private_bytes(bytes(32)))
    if found.tbs_certificate_bytes != expected.tbs_certificate_bytes:
        raise VerificationError(f"certificate of {peer_id} is not of the form that p2pd makes")
    try:
        key.verify(found.signature, found.tbs_certificate_bytes)
    except InvalidSignature as error:
        raise VerificationError(f"certificate of {peer_id} is not signed by its own key") from error


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
