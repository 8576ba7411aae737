"""The bytes of each message of a measurement, as other versions will send them."""

import json
from pathlib import Path
from typing import get_args

import pytest

from protocol.errors import RemoteProtocolError
from protocol.peers.measure_messages import (
    MAX_ECHO_BYTES,
    MAX_TRANSFER_BYTES,
    Echo,
    EchoReply,
    MeasuredPath,
    MeasureMessage,
    TransferAccepted,
    TransferEnd,
    TransferOffer,
    TransferRefused,
    TransferReport,
    decode_measure,
    encode_measure,
    is_measure_message,
)
from protocol.peers.peer_messages import PeerMessage
from protocol.peers.session_frames import MAX_CONTROL_BYTES

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "measure_messages.json").read_text())

MEASUREMENT = bytes(range(32))
MESSAGES: dict[str, MeasureMessage] = {
    "echo": Echo(number=7, padding=b"padding"),
    "echo of nothing": Echo(number=2**32 - 1, padding=b""),
    "echo reply": EchoReply(number=7, padding=b"padding"),
    "offer": TransferOffer(
        measurement=MEASUREMENT, size_bytes=100_000_000, path=MeasuredPath.RELAY
    ),
    "accepted": TransferAccepted(measurement=MEASUREMENT),
    "refused": TransferRefused(measurement=MEASUREMENT, reason="busy"),
    "end": TransferEnd(measurement=MEASUREMENT, size_bytes=0),
    "report": TransferReport(measurement=MEASUREMENT, received_bytes=MAX_TRANSFER_BYTES),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_bytes_are_what_is_written_and_read(name: str) -> None:
    golden = bytes.fromhex(GOLDEN["messages"][name])
    assert encode_measure(MESSAGES[name]) == golden
    assert decode_measure(golden) == MESSAGES[name]


@pytest.mark.parametrize("name", GOLDEN["malformed"])
def test_malformed_golden_bytes_are_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_measure(bytes.fromhex(GOLDEN["malformed"][name]))


def test_every_kind_of_message_is_among_them() -> None:
    assert {type(message) for message in MESSAGES.values()} == set(get_args(MeasureMessage))
    assert GOLDEN["messages"].keys() == MESSAGES.keys()
    assert len(GOLDEN["malformed"]) >= 10


def test_no_other_message_of_peers_is_taken_for_one() -> None:
    for kind in get_args(PeerMessage):
        fields = len(kind.__struct_fields__) + 1
        assert fields < 16
        assert not is_measure_message(bytes([0x90 + fields]))


def test_largest_echo_fits_a_control_message_and_a_larger_one_is_refused() -> None:
    largest = encode_measure(Echo(number=2**32 - 1, padding=bytes(MAX_ECHO_BYTES)))
    assert len(largest) < MAX_CONTROL_BYTES
    assert decode_measure(largest) == Echo(number=2**32 - 1, padding=bytes(MAX_ECHO_BYTES))
    with pytest.raises(RemoteProtocolError):
        decode_measure(encode_measure(Echo(number=1, padding=bytes(MAX_ECHO_BYTES + 1))))
