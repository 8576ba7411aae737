"""What a peer asks of another about lanes: paths of one kind that are used together.

A control message over a session, told from all others by its first byte.

>>> data = encode_lanes(LanesWanted(4, LaneKind.PUNCHED))
>>> is_lanes_message(data), decode_lanes(data)
(True, LanesWanted(count=4, kind=<LaneKind.PUNCHED: 'punched'>))
>>> decode_lanes(b"\\x03\\x90")
Traceback (most recent call last):
protocol.errors.RemoteProtocolError: malformed message: Expected `array` of at least length 3, got 0
"""

import enum
from typing import Annotated

import msgspec

from protocol.codec import Message, decode, encode
from protocol.errors import RemoteProtocolError

LANES_MARK = b"\x03"
"""Begins this message; measuring ones begin with another byte, and all others that peers send are
MessagePack arrays, which do not begin so."""
MAX_LANES = 24
"""To one peer. On a line of 100 ms that loses a packet in 1,000 each carries some 5 Mbit/s."""
MAX_LANES_MESSAGE_BYTES = 32


class LaneKind(enum.StrEnum):
    """A kind of path of which several may be used together."""

    DIRECT = "direct"
    PUNCHED = "punched"


class LanesWanted(Message, tag="lanes_wanted"):
    """So many paths of the kind I would use for what I send, if we make them; 1: one is enough."""

    count: Annotated[int, msgspec.Meta(ge=1, le=255)]
    kind: LaneKind


def is_lanes_message(data: bytes) -> bool:
    """Whether ``data`` is this message, or claims to be."""
    return data[:1] == LANES_MARK


def encode_lanes(message: LanesWanted) -> bytes:
    """The wire bytes of ``message``."""
    return LANES_MARK + encode(message)


def decode_lanes(data: bytes) -> LanesWanted:
    """The message in ``data``. Raises :class:`RemoteProtocolError`."""
    if not is_lanes_message(data):
        raise RemoteProtocolError("no message about lanes")
    message: LanesWanted = decode(
        memoryview(data)[1:], LanesWanted, max_bytes=MAX_LANES_MESSAGE_BYTES
    )
    return message
