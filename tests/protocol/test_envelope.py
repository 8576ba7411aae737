"""Signed envelopes: what is opened was said by its signer, for this reader, now."""

import pytest

from protocol.codec import encode
from protocol.envelope import (
    Domain,
    VerifiedMessage,
    _Body,
    _Envelope,
    open_envelope,
    seal_envelope,
)
from protocol.errors import RemoteProtocolError, VerificationError
from protocol.identity import Identity

ALICE, BOB = Identity(b"a" * 32), Identity(b"b" * 32)
SWARM = b"s" * 32
NOW_MS = 1_800_000_000_000


def sealed(**changes: object) -> bytes:
    arguments: dict[str, object] = {"swarm": SWARM, "sequence": 5} | changes
    return seal_envelope(ALICE, Domain.UPDATE, b"payload", **arguments)  # type: ignore[arg-type]  # a test's shorthand


def opened(raw: bytes, **changes: object) -> VerifiedMessage:
    arguments: dict[str, object] = {"now_ms": NOW_MS, "swarm": SWARM} | changes
    return open_envelope(raw, Domain.UPDATE, **arguments)  # type: ignore[arg-type]  # a test's shorthand


def test_what_was_sealed_is_opened() -> None:
    message = opened(sealed(audience=BOB.peer_id, expires_ms=NOW_MS + 1), audience=BOB.peer_id)
    assert (message.signer, message.payload, message.sequence) == (ALICE.peer_id, b"payload", 5)


def test_every_flipped_bit_is_noticed() -> None:
    raw = sealed()
    for position in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[position] ^= 1 << bit
            with pytest.raises(RemoteProtocolError):
                opened(bytes(changed))


@pytest.mark.parametrize(
    ("seal", "read", "text"),
    [
        ({"swarm": b"t" * 32}, {}, "for swarm"),
        ({"audience": BOB.peer_id}, {}, "another reader"),
        ({"audience": BOB.peer_id}, {"audience": ALICE.peer_id}, "another reader"),
        ({"expires_ms": NOW_MS}, {}, "expired"),
        ({}, {"signer": BOB.peer_id}, "not by"),
        ({}, {"max_bytes": 10}, "at most 10"),
    ],
)
def test_wrong_use_is_refused(seal: dict[str, object], read: dict[str, object], text: str) -> None:
    with pytest.raises(RemoteProtocolError, match=text):
        opened(sealed(**seal), **read)


def test_statement_of_another_kind_is_refused() -> None:
    with pytest.raises(VerificationError, match="'hello' expected, got 'update'"):
        open_envelope(sealed(), Domain.HELLO, now_ms=NOW_MS, swarm=SWARM)


def body_of_version(version: int) -> bytes:
    """What Alice signs."""
    return encode(
        _Body(
            domain="update",
            version=version,
            signer=ALICE.public_key,
            swarm=SWARM,
            audience=b"",
            expires_ms=0,
            sequence=0,
            payload=b"",
        )
    )


def test_other_protocol_version_says_what_to_do() -> None:
    body = body_of_version(99)
    raw = encode(_Envelope(body=body, signature=ALICE.sign(b"p2pd signed envelope\x00" + body)))
    with pytest.raises(RemoteProtocolError, match="needs an upgrade"):
        opened(raw)


def test_signature_that_was_made_for_something_else_is_refused() -> None:
    body = body_of_version(1)
    with pytest.raises(VerificationError, match="does not verify"):
        opened(encode(_Envelope(body=body, signature=ALICE.sign(body))))


def test_verified_message_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError, match="from open_envelope"):
        VerifiedMessage(Domain.UPDATE, ALICE.peer_id, SWARM, 0, 0, b"", b"", object())


@pytest.mark.parametrize(
    "junk", [b"", b"\xc1", b"\x92\xc4", b"\xdd\xff\xff\xff\xff", b"\x91" * 100_000]
)
def test_junk_is_no_envelope(junk: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        opened(junk)
