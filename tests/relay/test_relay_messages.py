"""The bytes of each message between peers and a relay, as other versions will send them."""

import json
from pathlib import Path
from typing import get_args

import pytest

from protocol.errors import RemoteProtocolError
from protocol.peers.session_frames import MAX_FRAME_BYTES as SESSION_FRAME_BYTES
from protocol.servers.relay_messages import (
    CREDIT_FRAME,
    DATA_HEADER,
    MAX_CONSENTED_KEYS,
    MAX_CONTROL_BYTES,
    MAX_DATA_BYTES,
    MAX_FRAME_BYTES,
    Answer,
    Close,
    Closed,
    Consent,
    FrameKind,
    FromClient,
    FromRelay,
    Goodbye,
    Hello,
    Incoming,
    Introduce,
    NotOpened,
    Open,
    Opened,
    Ping,
    Pong,
    Welcome,
    decode_from_client,
    decode_from_relay,
    encode_control,
)
from relay.client import seal as sealed_link

GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "relay_messages.json").read_text())

SWARM = bytes(range(32))
PEER = bytes(range(32, 64))
CURVE_KEY = bytes(range(64, 96))
LINK = 0x1122334455667788

FROM_CLIENT: dict[str, FromClient] = {
    "hello": Hello(version=1, window_bytes=4 << 20),
    "introduce": Introduce(record=b"record"),
    "consent": Consent(swarm=SWARM, keys=(PEER, CURVE_KEY), ask=True),
    "consent to nobody": Consent(swarm=SWARM, keys=(), ask=False),
    "open by CURVE key": Open(request=1, swarm=SWARM, curve_key=CURVE_KEY, peer=b""),
    "open by identity": Open(request=300, swarm=SWARM, curve_key=b"", peer=PEER),
    "answer": Answer(link=LINK, agreed=True),
    "close": Close(link=LINK, reason="done"),
    "ping": Ping(number=7),
}
FROM_RELAY: dict[str, FromRelay] = {
    "welcome": Welcome(
        version=1, window_bytes=1 << 20, observed_address="198.51.100.7", silence_s=30.0
    ),
    "incoming": Incoming(link=LINK, swarm=SWARM, curve_key=CURVE_KEY, agreed=False),
    "opened": Opened(request=1, link=LINK, curve_key=CURVE_KEY),
    "not opened": NotOpened(
        request=1, code="forbidden", text="the other peer refused", retry_after_s=2.5
    ),
    "closed": Closed(link=LINK, code="idle", text="no data for 300 s"),
    "pong": Pong(number=7),
    "goodbye": Goodbye(code="stopping", text="the relay is being stopped", retry_after_s=0.0),
}
NAMES = [*FROM_CLIENT, *FROM_RELAY]


def message_of(name: str) -> FromClient | FromRelay:
    return FROM_CLIENT[name] if name in FROM_CLIENT else FROM_RELAY[name]


def decoded(name: str, frame: bytes) -> FromClient | FromRelay:
    return decode_from_client(frame) if name in FROM_CLIENT else decode_from_relay(frame)


def test_every_kind_of_message_is_among_them() -> None:
    assert {type(message) for message in FROM_CLIENT.values()} == set(get_args(FromClient))
    assert {type(message) for message in FROM_RELAY.values()} == set(get_args(FromRelay))
    assert list(GOLDEN["control"]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_message_is_encoded_to_its_golden_bytes(name: str) -> None:
    assert encode_control(message_of(name)).hex() == GOLDEN["control"][name]


@pytest.mark.parametrize("name", NAMES)
def test_golden_bytes_are_decoded_to_their_message(name: str) -> None:
    assert decoded(name, bytes.fromhex(GOLDEN["control"][name])) == message_of(name)


@pytest.mark.parametrize("name", NAMES)
def test_each_cut_of_golden_bytes_is_refused(name: str) -> None:
    golden = bytes.fromhex(GOLDEN["control"][name])
    for length in range(len(golden)):
        with pytest.raises(RemoteProtocolError):
            decoded(name, golden[:length])


@pytest.mark.parametrize("variant", GOLDEN["malformed"], ids=lambda variant: variant["why"])
def test_malformed_bytes_are_refused(variant: dict[str, str]) -> None:
    frame = bytes.fromhex(variant["hex"])
    for decode in (decode_from_client, decode_from_relay):
        with pytest.raises(RemoteProtocolError):
            decode(frame)


def test_data_and_credit_frames_have_their_golden_bytes() -> None:
    data = DATA_HEADER.pack(FrameKind.DATA, LINK) + b"sealed"
    assert data.hex() == GOLDEN["data"]
    assert CREDIT_FRAME.pack(FrameKind.CREDIT, LINK, 1 << 40).hex() == GOLDEN["credit"]


def test_longest_control_messages_fit_into_a_frame() -> None:
    keys = tuple(bytes(32) for _ in range(MAX_CONSENTED_KEYS))
    frame = encode_control(Consent(SWARM, keys, ask=True))
    assert decode_from_client(frame) == Consent(SWARM, keys, ask=True)
    assert len(frame) <= MAX_CONTROL_BYTES < MAX_FRAME_BYTES


def test_consent_to_too_many_keys_is_refused() -> None:
    keys = tuple(bytes(32) for _ in range(MAX_CONSENTED_KEYS + 1))
    with pytest.raises(RemoteProtocolError, match="1025 keys"):
        decode_from_client(encode_control(Consent(SWARM, keys, ask=True)))


def test_sealed_session_frame_fits_into_one_data_frame() -> None:
    assert sealed_link.MAX_FRAME_BYTES == SESSION_FRAME_BYTES
    records = 18
    assert SESSION_FRAME_BYTES + 4 + records * 22 <= MAX_DATA_BYTES
