"""The wire format of session frames: golden bytes, and what is refused."""

import json
from pathlib import Path

import pytest

from protocol.errors import RemoteProtocolError
from protocol.peers.session_frames import (
    DATA_HEADER_BYTES,
    MAX_CLOSE_TEXT,
    MAX_FRAME_BYTES,
    MAX_PAYLOAD_BYTES,
    Ack,
    Close,
    CloseCode,
    Data,
    Frame,
    Hello,
    Ping,
    Pong,
    Stream,
    StreamAck,
    close_frame,
    decode_frame,
    encode_data,
    encode_frame,
)

GOLDEN = json.loads(
    (Path(__file__).parent.parent.parent / "data" / "session_frames.json").read_text("ascii")
)

VALID: dict[str, Frame] = {
    "hello": Hello(envelope=b"an envelope"),
    "ack": Ack(
        control=StreamAck(next_sequence=3, credit_bytes=2**21, received=()),
        bulk=StreamAck(next_sequence=70_000, credit_bytes=2**40, received=((70_002, 70_010),)),
        said_at_us=86_400_000_000,
    ),
    "ping": Ping(number=7),
    "pong": Pong(number=7),
    "close": Close(code="denied", text="denied: no invite"),
    "data-control-whole": Data(Stream.CONTROL, 5, first=True, last=True, payload=memoryview(b"hi")),
    "data-bulk-middle": Data(
        Stream.BULK, 2**40, first=False, last=False, payload=memoryview(b"model")
    ),
    "data-bulk-last-empty": Data(Stream.BULK, 1, first=False, last=True, payload=memoryview(b"")),
}


def encoded(frame: Frame) -> bytes:
    if isinstance(frame, Data):
        return encode_data(
            frame.stream,
            frame.sequence,
            first=frame.first,
            last=frame.last,
            payload=frame.payload,
        )
    return encode_frame(frame)


@pytest.mark.parametrize("name", VALID)
def test_golden_bytes_are_what_is_written_and_read(name: str) -> None:
    golden = bytes.fromhex(GOLDEN["valid"][name])
    assert encoded(VALID[name]) == golden
    assert decode_frame(golden) == VALID[name]


@pytest.mark.parametrize("name", GOLDEN["malformed"])
def test_malformed_golden_bytes_are_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_frame(bytes.fromhex(GOLDEN["malformed"][name]))


def test_every_golden_frame_is_tested() -> None:
    assert GOLDEN["valid"].keys() == VALID.keys()
    assert len(GOLDEN["malformed"]) >= 10


def test_largest_data_frame_fits_a_path_and_a_larger_frame_is_refused() -> None:
    data = encode_data(Stream.BULK, 1, first=True, last=False, payload=bytes(MAX_PAYLOAD_BYTES))
    assert len(data) == MAX_FRAME_BYTES == MAX_PAYLOAD_BYTES + DATA_HEADER_BYTES
    assert isinstance(decode_frame(data), Data)
    with pytest.raises(RemoteProtocolError, match=f"at most {MAX_FRAME_BYTES}"):
        decode_frame(data + b"x")


def test_payload_is_not_copied() -> None:
    data = encode_data(Stream.BULK, 1, first=True, last=False, payload=b"model")
    frame = decode_frame(data)
    assert isinstance(frame, Data)
    assert frame.payload.obj is data


def test_text_of_a_close_is_cut_to_what_fits() -> None:
    frame = decode_frame(close_frame(CloseCode.PROTOCOL, "why " * 1000))
    assert isinstance(frame, Close)
    assert len(frame.text) == MAX_CLOSE_TEXT


def test_payload_of_a_frame_is_not_copied() -> None:
    data = memoryview(encode_data(Stream.BULK, 1, first=True, last=True, payload=b"tensor bytes"))
    frame = decode_frame(data)
    assert isinstance(frame, Data)
    assert bytes(frame.payload) == b"tensor bytes"
    assert frame.payload.obj is data.obj
