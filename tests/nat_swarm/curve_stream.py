"""What one side of a ZeroMQ connection with CURVE sent: its boxes, and nothing beside them.

ZMTP 3.1 (ZeroMQ RFC 37) has the greeting and the frames, CurveZMQ (RFC 26) the handshake and what
a message's frame looks like: a name and a nonce in the clear, then the box.
"""

from collections.abc import Iterator

_GREETING_BYTES = 64
_MECHANISM = slice(12, 32)
_LONG = 0x02
_COMMAND = 0x04
_HANDSHAKE = {b"\x05HELLO", b"\x07WELCOME", b"\x08INITIATE", b"\x05READY"}
_MESSAGE = b"\x07MESSAGE"
_NONCE_BYTES = 8


def boxes(stream: bytes) -> Iterator[bytes]:
    """Of each message that the capture has whole. Each handshake command that came before them is
    checked for its name only, since CURVE hides nothing but keys and a socket's type in them.

    Raises AssertionError for a frame that is neither.
    """
    assert stream[_MECHANISM].rstrip(b"\0") == b"CURVE"
    handshaken = False
    for flags, body in _frames(stream[_GREETING_BYTES:]):
        if not handshaken and flags & _COMMAND:
            assert body[: 1 + body[0]] in _HANDSHAKE, body[:16]
            continue
        handshaken = True
        assert body.startswith(_MESSAGE), body[:16]
        yield body[len(_MESSAGE) + _NONCE_BYTES :]


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Flags and body of each; the last one is left out when it was cut short."""
    at = 0
    while at < len(data):
        flags = data[at]
        assert flags < 8, "no frame begins here"
        length_bytes = 8 if flags & _LONG else 1
        begin = at + 1 + length_bytes
        at = begin + int.from_bytes(data[at + 1 : begin])
        if begin <= len(data) and at <= len(data):
            yield flags, data[begin:at]
