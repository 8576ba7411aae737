"""The check that nothing but ciphertext crosses a connection finds what is none."""

import pytest

from tests.nat_swarm.curve_stream import boxes

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
HELLO = b"\x04\x0d\x05HELLO" + bytes(7)
NONCE = bytes(range(8))
SHORT = b"\x00\x14\x07MESSAGE" + NONCE + b"box!"
LONG = b"\x02" + (316).to_bytes(8) + b"\x07MESSAGE" + NONCE + b"x" * 300


def test_boxes_are_found_and_one_that_was_cut_short_is_left_out() -> None:
    stream = GREETING + HELLO + SHORT + LONG
    assert list(boxes(stream)) == [b"box!", b"x" * 300]
    assert list(boxes(stream[:-1])) == [b"box!"]


@pytest.mark.parametrize(
    "stream",
    [
        GREETING.replace(b"CURVE", b"PLAIN") + HELLO + SHORT,
        GREETING + b"\x04\x0c\x05OTHER" + bytes(6),
        GREETING + HELLO + SHORT + b"\x00\x05hello",
        GREETING + HELLO + SHORT + HELLO,
        GREETING + HELLO + SHORT + b"hello",
    ],
    ids=["no CURVE", "unknown command", "message in the clear", "late command", "no frame"],
)
def test_anything_else_fails(stream: bytes) -> None:
    with pytest.raises(AssertionError):
        list(boxes(stream))
