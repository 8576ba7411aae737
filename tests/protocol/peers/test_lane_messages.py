"""The bytes of what is said about lanes, as other versions will send them."""

from typing import get_args

import pytest

from protocol.errors import RemoteProtocolError
from protocol.peers.lane_messages import (
    MAX_LANES,
    LaneKind,
    LanesWanted,
    decode_lanes,
    encode_lanes,
    is_lanes_message,
)
from protocol.peers.measure_messages import is_measure_message
from protocol.peers.peer_messages import PeerMessage

WANTED = LanesWanted(4, LaneKind.PUNCHED)
GOLDEN = bytes.fromhex("0393ac6c616e65735f77616e74656404a770756e63686564")
MALFORMED = {
    "nothing": "",
    "its mark alone": "03",
    "another mark": "0293ac6c616e65735f77616e74656404a770756e63686564",
    "none": "0393ac6c616e65735f77616e74656400a770756e63686564",
    "more than a byte": "0393ac6c616e65735f77616e746564cd0100a770756e63686564",
    "fewer than none": "0393ac6c616e65735f77616e746564ffa770756e63686564",
    "text": "0393ac6c616e65735f77616e746564a134a770756e63686564",
    "another tag": "0393ac6c616e65735f77616e74656504a770756e63686564",
    "another kind": "0393ac6c616e65735f77616e74656404a572656c6179",
    "no kind": "0392ac6c616e65735f77616e74656404",
    "more than a kind": "0394ac6c616e65735f77616e74656404a770756e6368656404",
    "bytes behind it": "0393ac6c616e65735f77616e74656404a770756e6368656404",
    "too long": "0393ac6c616e65735f77616e746564" + "00" * 40,
}


def test_golden_bytes_are_what_is_written_and_read() -> None:
    assert encode_lanes(WANTED) == GOLDEN
    assert decode_lanes(GOLDEN) == WANTED
    assert decode_lanes(encode_lanes(LanesWanted(255, LaneKind.DIRECT))).count > MAX_LANES


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_bytes_are_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_lanes(bytes.fromhex(MALFORMED[name]))


def test_no_other_message_is_taken_for_one() -> None:
    assert not is_measure_message(GOLDEN)
    for kind in get_args(PeerMessage):
        assert not is_lanes_message(bytes([0x91 + len(kind.__struct_fields__)]))
