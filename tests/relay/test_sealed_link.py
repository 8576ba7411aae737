"""TLS between two identities over a relay that may do with the bytes what it likes."""

import os
import random
import struct

import pytest

from protocol.certificate import certificate_digest, make_certificate
from protocol.errors import P2PDError, TransportError, VerificationError, VersionError
from protocol.identity import Identity
from relay.client.seal import MAX_FRAME_BYTES, SealedLink, SealRole, SealState

ALICE = Identity(bytes(range(32)))
BOB = Identity(bytes(range(32, 64)))
MALLORY = Identity(bytes(range(64, 96)))
EVERYTHING = 1 << 24


def pair(
    *, alice_expects: Identity = BOB, bob_expects: Identity = ALICE, bob: Identity = BOB
) -> tuple[SealedLink, SealedLink]:
    return (
        SealedLink(ALICE, SealRole.CLIENT, alice_expects.peer_id),
        SealedLink(bob, SealRole.SERVER, bob_expects.peer_id),
    )


def carry(sender: SealedLink, receiver: SealedLink, chunk_bytes: int = EVERYTHING) -> list[bytes]:
    """Move all that waits; the frames that arrive."""
    frames: list[bytes] = []
    while data := sender.data_to_send(chunk_bytes):
        frames += receiver.receive_data(data)
    return frames


def shake_hands(alice: SealedLink, bob: SealedLink, chunk_bytes: int = EVERYTHING) -> None:
    for _ in range(4):
        carry(alice, bob, chunk_bytes)
        carry(bob, alice, chunk_bytes)


def opened() -> tuple[SealedLink, SealedLink]:
    alice, bob = pair()
    shake_hands(alice, bob)
    assert (alice.state, bob.state) == (SealState.OPEN, SealState.OPEN)
    return alice, bob


def sealed_frames(sender: SealedLink, count: int) -> list[bytes]:
    """Data frames as a relay forwards them, one for each session frame."""
    sealed = []
    for number in range(count):
        sender.send(b"frame %d" % number)
        sealed.append(sender.data_to_send(EVERYTHING))
    return sealed


@pytest.mark.parametrize("size", [0, 1, 5, 16 * 1024 - 4, 16 * 1024, 50_000, MAX_FRAME_BYTES])
def test_frames_of_every_size_arrive_whole(size: int) -> None:
    alice, bob = opened()
    frame = os.urandom(size)
    for sender, receiver in ((alice, bob), (bob, alice)):
        sender.send(frame)
        sender.send(b"next")
        assert carry(sender, receiver) == [frame, b"next"]


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000, 66_000])
def test_cutting_the_bytes_anywhere_changes_nothing(chunk_bytes: int) -> None:
    alice, bob = pair()
    shake_hands(alice, bob, chunk_bytes)
    frames = [b"", b"a", bytes(2000), b"end"]
    for frame in frames:
        alice.send(frame)
    assert carry(alice, bob, chunk_bytes) == frames


def test_many_frames_in_one_piece_arrive_in_order() -> None:
    alice, bob = opened()
    frames = [os.urandom(random.Random(n).randrange(3000)) for n in range(200)]
    for frame in frames:
        alice.send(frame)
    assert carry(alice, bob) == frames


def test_plaintext_is_not_in_what_the_relay_sees() -> None:
    alice, bob = pair()
    seen = b""
    for _ in range(4):
        for sender, receiver in ((alice, bob), (bob, alice)):
            data = sender.data_to_send(EVERYTHING)
            seen += data
            if data:
                receiver.receive_data(data)
    alice.send(b"the secret weights " * 100)
    seen += alice.data_to_send(EVERYTHING)
    assert b"secret weights" not in seen
    assert len(seen) > 2000


def test_both_ends_have_the_same_channel_binding_client_first() -> None:
    alice, bob = opened()
    digests = [certificate_digest(make_certificate(identity)) for identity in (ALICE, BOB)]
    assert alice.channel_binding == bob.channel_binding == b"".join(digests)


def test_links_between_others_have_another_channel_binding() -> None:
    alice, _ = opened()
    mallory = SealedLink(MALLORY, SealRole.SERVER, ALICE.peer_id)
    other = SealedLink(ALICE, SealRole.CLIENT, MALLORY.peer_id)
    shake_hands(other, mallory)
    assert other.state is SealState.OPEN
    assert other.channel_binding != alice.channel_binding


@pytest.mark.parametrize("position", [0, 3, 5, 12, -1])
def test_bit_flipped_in_a_frame_ends_the_link(position: int) -> None:
    alice, bob = opened()
    alice.send(b"x" * 100)
    changed = bytearray(alice.data_to_send(EVERYTHING))
    changed[position] ^= 0x10
    # Padded, since a greater length of a record shows only when as much has come.
    with pytest.raises(TransportError):
        bob.receive_data(bytes(changed) + bytes(1 << 16))
    assert bob.state is SealState.FAILED


def test_repeated_frame_ends_the_link() -> None:
    alice, bob = opened()
    first, second = sealed_frames(alice, 2)
    assert bob.receive_data(first) == [b"frame 0"]
    with pytest.raises(TransportError, match="changed, lost or reordered"):
        bob.receive_data(first)
    with pytest.raises(TransportError, match="failed before"):
        bob.receive_data(second)


def test_dropped_frame_ends_the_link() -> None:
    alice, bob = opened()
    first, _, third = sealed_frames(alice, 3)
    assert bob.receive_data(first) == [b"frame 0"]
    with pytest.raises(TransportError, match="changed, lost or reordered"):
        bob.receive_data(third)
    assert bob.state is SealState.FAILED


def test_reordered_frames_end_the_link() -> None:
    alice, bob = opened()
    first, second = sealed_frames(alice, 2)
    with pytest.raises(TransportError, match="changed, lost or reordered"):
        bob.receive_data(second)
    with pytest.raises(TransportError, match="failed before"):
        bob.receive_data(first)


def test_frame_of_the_other_direction_ends_the_link() -> None:
    alice, bob = opened()
    (reflected,) = sealed_frames(alice, 1)
    with pytest.raises(TransportError):
        alice.receive_data(reflected)
    assert bob.state is SealState.OPEN


def test_frame_of_an_earlier_link_between_the_same_peers_ends_the_link() -> None:
    earlier, _ = opened()
    _, bob = opened()
    (old,) = sealed_frames(earlier, 1)
    with pytest.raises(TransportError):
        bob.receive_data(old)


def test_link_that_failed_sends_nothing_more() -> None:
    _, bob = opened()
    with pytest.raises(TransportError):
        bob.receive_data(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(TransportError, match="failed"):
        bob.send(b"frame")


def test_other_end_learns_from_the_alert_that_the_link_failed() -> None:
    alice, bob = opened()
    with pytest.raises(TransportError):
        bob.receive_data(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(TransportError):
        alice.receive_data(bob.data_to_send(EVERYTHING))


def test_server_with_another_identity_is_refused_and_both_are_named() -> None:
    alice, mallory = pair(bob=MALLORY)
    with pytest.raises(VerificationError) as refusal:
        shake_hands(alice, mallory)
    assert BOB.peer_id in str(refusal.value)
    assert MALLORY.peer_id in str(refusal.value)
    assert alice.state is SealState.FAILED


def test_client_with_another_identity_is_refused_and_both_are_named() -> None:
    alice, bob = pair(bob_expects=MALLORY)
    with pytest.raises(VerificationError) as refusal:
        shake_hands(alice, bob)
    assert MALLORY.peer_id in str(refusal.value)
    assert ALICE.peer_id in str(refusal.value)
    assert bob.state is SealState.FAILED


def test_certificate_shown_without_its_key_is_refused() -> None:
    """The relay puts Bob's certificate in front of a handshake that only Mallory can make."""
    alice, mallory = pair(bob=MALLORY)
    mallory.receive_data(alice.data_to_send(EVERYTHING))
    forged = mallory.data_to_send(EVERYTHING)
    preface_bytes = struct.calcsize("!BH") + len(make_certificate(MALLORY))
    bobs = make_certificate(BOB)
    preface = struct.pack("!BH", 1, len(bobs)) + bobs
    with pytest.raises(VerificationError, match="TLS with"):
        alice.receive_data(preface + forged[preface_bytes:])
    assert alice.state is SealState.FAILED


def test_client_certificate_shown_without_its_key_is_refused() -> None:
    mallory = SealedLink(MALLORY, SealRole.CLIENT, BOB.peer_id)
    bob = SealedLink(BOB, SealRole.SERVER, ALICE.peer_id)
    hello = mallory.data_to_send(EVERYTHING)
    preface_bytes = struct.calcsize("!BH") + len(make_certificate(MALLORY))
    alices = make_certificate(ALICE)
    bob.receive_data(struct.pack("!BH", 1, len(alices)) + alices + hello[preface_bytes:])
    mallory.receive_data(bob.data_to_send(EVERYTHING))
    with pytest.raises(VerificationError, match="TLS with"):
        bob.receive_data(mallory.data_to_send(EVERYTHING))
    assert bob.state is SealState.FAILED


@pytest.mark.parametrize("position", range(0, 900, 23))
def test_bit_flipped_anywhere_in_the_handshake_fails_it(position: int) -> None:
    alice, bob = pair()
    changed = bytearray(alice.data_to_send(EVERYTHING))
    if position < len(changed):
        changed[position] ^= 0x40
        changed_by = "client"
    else:
        changed_by = "server"
    errors = []
    try:
        bob.receive_data(bytes(changed))
    except P2PDError as error:
        errors.append(error)
    if changed_by == "server":
        answer = bytearray(bob.data_to_send(EVERYTHING))
        answer[position - len(changed)] ^= 0x40
        try:
            alice.receive_data(bytes(answer))
        except P2PDError as error:
            errors.append(error)
    for _ in range(3):
        for sender, receiver in ((bob, alice), (alice, bob)):
            try:
                carry(sender, receiver)
            except P2PDError as error:
                errors.append(error)
    assert errors or SealState.OPEN not in (alice.state, bob.state)
    assert not (alice.state is SealState.OPEN and bob.state is SealState.OPEN)


def test_other_version_is_named() -> None:
    alice, _ = pair()
    with pytest.raises(VersionError, match="sealing version 1 expected, got 9"):
        alice.receive_data(b"\x09\x00\x10" + bytes(16))


def test_endless_certificate_is_refused_before_it_is_read() -> None:
    alice, _ = pair()
    with pytest.raises(VerificationError, match="65535 bytes"):
        alice.receive_data(b"\x01\xff\xff")


def test_nothing_is_sent_before_the_other_side_is_proven() -> None:
    alice, _ = pair()
    with pytest.raises(TransportError, match="preface"):
        alice.send(b"frame")


def test_close_reaches_the_other_end_after_what_was_sent_before() -> None:
    alice, bob = opened()
    alice.send(b"last")
    alice.close()
    assert carry(alice, bob) == [b"last"]
    assert bob.state is SealState.CLOSED
    assert bob.receive_data(b"whatever follows") == []


def test_frame_above_the_limit_is_a_mistake_of_the_caller() -> None:
    alice, _ = opened()
    with pytest.raises(ValueError, match=f"{MAX_FRAME_BYTES + 1} bytes"):
        alice.send(bytes(MAX_FRAME_BYTES + 1))


def test_link_ends_before_its_keys_are_worn_out() -> None:
    alice = SealedLink(ALICE, SealRole.CLIENT, BOB.peer_id, max_records=37)
    bob = SealedLink(BOB, SealRole.SERVER, ALICE.peer_id)
    shake_hands(alice, bob)
    alice.send(bytes(MAX_FRAME_BYTES))
    alice.send(bytes(MAX_FRAME_BYTES))
    with pytest.raises(TransportError, match="used up"):
        alice.send(b"one more")
    assert len(carry(alice, bob)) == 2
