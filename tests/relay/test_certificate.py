"""Certificates of identities: one each, and accepted for no other."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from protocol.certificate import (
    MAX_CERTIFICATE_BYTES,
    certificate_digest,
    check_certificate,
    make_certificate,
)
from protocol.errors import VerificationError
from protocol.identity import Identity

ALICE = Identity(bytes(range(32)))
BOB = Identity(bytes(range(32, 64)))


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def test_certificate_is_the_same_each_time() -> None:
    assert make_certificate(ALICE) == make_certificate(Identity(ALICE.secret))
    assert certificate_digest(make_certificate(ALICE)).hex() == (
        "c2e37fa2a7b2b1406b24ff16e1464abd642e6252037330db5fd07fc43eb29af2"
    )


def test_certificate_is_valid_whatever_the_clock_says() -> None:
    certificate = x509.load_der_x509_certificate(make_certificate(ALICE))
    assert certificate.not_valid_before_utc == datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    assert certificate.not_valid_after_utc.year == 9999


def test_own_certificate_is_accepted() -> None:
    check_certificate(make_certificate(ALICE), ALICE.peer_id)


def test_certificate_of_another_peer_is_refused_with_both_ids() -> None:
    with pytest.raises(VerificationError) as refusal:
        check_certificate(make_certificate(BOB), ALICE.peer_id)
    assert ALICE.peer_id in str(refusal.value)
    assert BOB.peer_id in str(refusal.value)


def test_certificate_with_any_bit_changed_is_refused() -> None:
    genuine = make_certificate(ALICE)
    for position in range(len(genuine)):
        changed = bytearray(genuine)
        changed[position] ^= 1 << position % 8
        with pytest.raises(VerificationError):
            check_certificate(bytes(changed), ALICE.peer_id)


@pytest.mark.parametrize("raw", [b"", b"\x30", b"certificate", bytes(MAX_CERTIFICATE_BYTES + 1)])
def test_garbage_is_refused(raw: bytes) -> None:
    with pytest.raises(VerificationError):
        check_certificate(raw, ALICE.peer_id)


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(VerificationError):
        check_certificate(make_certificate(ALICE) + b"\x00", ALICE.peer_id)


def test_certificate_with_other_fields_is_refused_though_its_owner_signed_it() -> None:
    key = Ed25519PrivateKey.from_private_bytes(ALICE.secret)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(named(ALICE.peer_id))
        .issuer_name(named("somebody else"))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC))
        .sign(key, None)
    )
    with pytest.raises(VerificationError, match="not of the form"):
        check_certificate(certificate.public_bytes(Encoding.DER), ALICE.peer_id)


def test_certificate_that_somebody_else_signed_is_refused() -> None:
    genuine = make_certificate(ALICE)
    other = make_certificate(BOB)
    signature_bytes = 64
    forged = genuine[:-signature_bytes] + other[-signature_bytes:]
    with pytest.raises(VerificationError, match="signature"):
        check_certificate(forged, ALICE.peer_id)


def test_certificate_with_another_kind_of_key_is_refused() -> None:
    key = generate_private_key(SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(named(ALICE.peer_id))
        .issuer_name(named(ALICE.peer_id))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC))
        .sign(key, SHA256())
    )
    with pytest.raises(VerificationError, match="no certificate"):
        check_certificate(certificate.public_bytes(Encoding.DER), ALICE.peer_id)
