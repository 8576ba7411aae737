"""The frames that two peers exchange on a path, each at most 257 KiB; every path carries such.

How large a data frame is, its sender chooses by the path's measured rate, up to what the other side
has said in its hello that it takes.

Data frames have a binary header, since all model bytes pass through it; everything else is a tagged
MessagePack message. The first byte tells them apart: a message begins with an array mark (0x90 and
up), data with 0x01.

A message to a peer travels on one of two streams, cut into data frames that are numbered from 0 on
in each stream. An :class:`Ack` says what has arrived and how much more may be sent. Credit counts
payload bytes plus :data:`FRAME_COST_BYTES` for each frame, so that it bounds the number of frames
that a receiver has to remember too.
"""

import enum
import struct
from dataclasses import dataclass
from typing import Annotated

import msgspec

from protocol.codec import MAX_MESSAGE_BYTES, Message, decode, encode
from protocol.errors import RemoteProtocolError

MAX_FRAME_BYTES = 257 * 1024
"""A quarter of a chunk, and what is said about it."""
SMALL_FRAME_BYTES = 64 * 1024
"""Every peer takes such, whatever it is told; slow paths get no larger ones."""
MAX_CONTROL_BYTES = MAX_MESSAGE_BYTES
MAX_BULK_BYTES = MAX_MESSAGE_BYTES + SMALL_FRAME_BYTES
"""A chunk of 1 MiB and what is said about it."""
FRAME_COST_BYTES = 256
MAX_ACK_RANGES = 16
MAX_CLOSE_TEXT = 500

_DATA_HEADER = struct.Struct("!BBQ")
_DATA_MARK = 0x01
_DATA_MARK_BYTE = bytes([_DATA_MARK])
_BULK_FLAG = 0x01
_FIRST_FLAG = 0x02
_LAST_FLAG = 0x04
_ALL_FLAGS = _BULK_FLAG | _FIRST_FLAG | _LAST_FLAG

DATA_HEADER_BYTES = _DATA_HEADER.size
MAX_PAYLOAD_BYTES = MAX_FRAME_BYTES - DATA_HEADER_BYTES

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Stream(enum.IntEnum):
    """Control goes before bulk; neither waits for the other's lost frames or credit."""

    CONTROL = 0
    BULK = 1


MAX_STREAM_MESSAGE_BYTES = {Stream.CONTROL: MAX_CONTROL_BYTES, Stream.BULK: MAX_BULK_BYTES}


@dataclass(frozen=True, slots=True)
class Data:
    """One fragment of a message.

    >>> Data(Stream.BULK, 7, True, False, memoryview(b"tensor bytes")).cost_bytes
    268
    """

    stream: Stream
    sequence: int
    first: bool
    last: bool
    payload: memoryview

    @property
    def cost_bytes(self) -> int:
        """The credit that it uses."""
        return len(self.payload) + FRAME_COST_BYTES


class StreamAck(Message):
    """What one side has received of a stream, and how much of it it is willing to receive."""

    next_sequence: Count
    """Every frame before this one has arrived."""
    credit_bytes: Count
    """How much may be sent in all, counted since frame 0."""
    received: Annotated[tuple[tuple[Count, Count], ...], msgspec.Meta(max_length=MAX_ACK_RANGES)]
    """Ranges (first, end) of later frames that have arrived too."""


class Hello(Message, tag="hello"):
    """A signed envelope of domain ``hello`` (protocol/peers/hello.py)."""

    envelope: bytes


class Ack(Message, tag="ack"):
    """Acknowledges both streams; a later one says all that an earlier one did."""

    control: StreamAck
    bulk: StreamAck
    said_at_us: Count
    """When that was said, in microseconds by this side's clock, whose zero is its own affair. From
    one to the next the other side sees by how much longer its frames took, and not what this word
    took to come back."""


class Ping(Message, tag="ping"):
    """Asks for a :class:`Pong` on the same path."""

    number: Count


class Pong(Message, tag="pong"):
    """Answers the ping of this number."""

    number: Count


class CloseCode(enum.StrEnum):
    """Why a path is closed. Later versions may know more."""

    LEAVING = "leaving"
    """The peer stops; the session is over, not only this path."""
    UNNEEDED = "unneeded"
    """The peer has no use for the session; who has may come again."""
    DENIED = "denied"
    VERSION = "version"
    IDENTITY = "identity"
    """The hello was not that of the peer that was called, or did not verify."""
    PROTOCOL = "protocol"
    STALE_EPOCH = "stale-epoch"
    BUSY = "busy"
    PATH = "path"
    """Only this path is over: silent for too long, or another took its place."""


class Close(Message, tag="close"):
    """The last frame on a path."""

    code: Annotated[str, msgspec.Meta(max_length=32)]
    text: Annotated[str, msgspec.Meta(max_length=MAX_CLOSE_TEXT)]


_Message = Hello | Ack | Ping | Pong | Close
Frame = Data | _Message


def encode_data(
    stream: Stream, sequence: int, *, first: bool, last: bool, payload: bytes | memoryview
) -> bytes:
    """The bytes of a data frame."""
    flags = stream | (_FIRST_FLAG if first else 0) | (_LAST_FLAG if last else 0)
    return b"".join((_DATA_HEADER.pack(_DATA_MARK, flags, sequence), payload))


def encode_frame(frame: Hello | Ack | Ping | Pong | Close) -> bytes:
    """The bytes of any other frame."""
    return encode(frame)


def close_frame(code: CloseCode, text: str) -> bytes:
    """The bytes of a :class:`Close`, its text cut to what fits."""
    return encode(Close(code=code.value, text=text[:MAX_CLOSE_TEXT]))


def is_data_frame(data: bytes | memoryview) -> bool:
    """Whether ``data`` is a data frame, or claims to be one."""
    return data[:1] == _DATA_MARK_BYTE


def decode_frame(data: bytes | memoryview) -> Frame:
    """The frame in ``data``, whose payload is not copied. Raises :class:`RemoteProtocolError`."""
    if len(data) > MAX_FRAME_BYTES:
        raise RemoteProtocolError(f"frame of {len(data)} bytes, at most {MAX_FRAME_BYTES} allowed")
    if not is_data_frame(data):
        message: _Message = decode(data, _Message)
        return message
    if len(data) < DATA_HEADER_BYTES:
        raise RemoteProtocolError(f"data frame of {len(data)} bytes")
    _, flags, sequence = _DATA_HEADER.unpack_from(data)
    if flags & ~_ALL_FLAGS or sequence >= 2**63:
        raise RemoteProtocolError(f"data frame with flags {flags:#x} and sequence {sequence}")
    return Data(
        stream=Stream(flags & _BULK_FLAG),
        sequence=sequence,
        first=bool(flags & _FIRST_FLAG),
        last=bool(flags & _LAST_FLAG),
        payload=memoryview(data)[DATA_HEADER_BYTES:],
    )
