"""What two peers of a swarm say to each other to measure what is between them.

Control messages over a session, told from all others by their first byte. A measured transfer's
bytes travel as chunks (protocol/peers/chunk_frame.py) of a blob that nobody keeps: in place of a
Merkle root they carry the measurement's id, which is random.

>>> data = encode_measure(Echo(7, b"some bytes"))
>>> is_measure_message(data), decode_measure(data)
(True, Echo(number=7, padding=b'some bytes'))
>>> decode_measure(encode(Echo(7, b"some bytes")))
Traceback (most recent call last):
protocol.errors.RemoteProtocolError: no measuring message
"""

import enum
from typing import Annotated

import msgspec

from protocol.codec import Message, decode, encode
from protocol.errors import RemoteProtocolError
from protocol.merkle import DIGEST_BYTES

MEASURE_MARK = b"\x02"
"""Begins each of these messages; all others that peers send are MessagePack arrays, which do not
begin so."""
MEASUREMENT_ID_BYTES = DIGEST_BYTES
MAX_ECHO_BYTES = 60_000
MAX_TRANSFER_BYTES = 4_000_000_000
MAX_REASON_LENGTH = 200
MAX_MEASURE_MESSAGE_BYTES = MAX_ECHO_BYTES + 64

Number = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
TransferBytes = Annotated[int, msgspec.Meta(ge=0, le=MAX_TRANSFER_BYTES)]
MeasurementId = Annotated[
    bytes, msgspec.Meta(min_length=MEASUREMENT_ID_BYTES, max_length=MEASUREMENT_ID_BYTES)
]
Padding = Annotated[bytes, msgspec.Meta(max_length=MAX_ECHO_BYTES)]


class MeasuredPath(enum.StrEnum):
    """A kind of path."""

    DIRECT = "direct"
    PUNCHED = "punched"
    ICE = "ice"
    RELAY = "relay"


class Echo(Message, tag="echo"):
    """Say this back."""

    number: Number
    padding: Padding


class EchoReply(Message, tag="echo_reply"):
    """The payload of an :class:`Echo`."""

    number: Number
    padding: Padding


class TransferOffer(Message, tag="transfer_offer"):
    """May I send you so many bytes to be counted, over a path of this kind?"""

    measurement: MeasurementId
    size_bytes: TransferBytes
    path: MeasuredPath


class TransferAccepted(Message, tag="transfer_accepted"):
    """Begin: I count, and keep such a path as long as this lasts."""

    measurement: MeasurementId


class TransferRefused(Message, tag="transfer_refused"):
    """No, or no longer."""

    measurement: MeasurementId
    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON_LENGTH)]
    """The reason, to show to people."""


class TransferEnd(Message, tag="transfer_end"):
    """No more than so many bytes come, be it more or less than has arrived yet."""

    measurement: MeasurementId
    size_bytes: TransferBytes


class TransferReport(Message, tag="transfer_report"):
    """All has arrived: so many bytes."""

    measurement: MeasurementId
    received_bytes: TransferBytes


MeasureMessage = (
    Echo
    | EchoReply
    | TransferOffer
    | TransferAccepted
    | TransferRefused
    | TransferEnd
    | TransferReport
)


def is_measure_message(data: bytes) -> bool:
    """Whether ``data`` is one of these messages, or claims to be."""
    return data[:1] == MEASURE_MARK


def encode_measure(message: MeasureMessage) -> bytes:
    """The wire bytes of ``message``."""
    return MEASURE_MARK + encode(message)


def decode_measure(data: bytes) -> MeasureMessage:
    """The message in ``data``. Raises :class:`RemoteProtocolError`."""
    if not is_measure_message(data):
        raise RemoteProtocolError("no measuring message")
    message: MeasureMessage = decode(
        memoryview(data)[1:], MeasureMessage, max_bytes=MAX_MEASURE_MESSAGE_BYTES
    )
    return message
