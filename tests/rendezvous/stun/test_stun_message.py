"""STUN messages: those of RFC 5769, our own, and everything malformed."""

import struct
from contextlib import suppress

import pytest
from aioice import stun
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.uri import HostPort
from rendezvous.stun.message import (
    MAX_STUN_BYTES,
    BindingError,
    BindingSuccess,
    Change,
    encode_request,
    encode_success,
    encode_unknown_attribute,
    message_length,
    parse_request,
    parse_response,
)

ID = bytes.fromhex("b7e7a701bc34d686fa87dfae")

# RFC 5769 section 2.2 and 2.3, with its MESSAGE-INTEGRITY and FINGERPRINT.
RFC_RESPONSE_IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004c07d4c96"
)
RFC_RESPONSE_IPV6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004c8fb0b4c"
)


def message(*attributes: tuple[int, bytes], message_type: int = 0x0001) -> bytes:
    """A message put together by hand, padded as it must be."""
    body = b"".join(
        struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)
        for kind, value in attributes
    )
    return struct.pack("!HHI", message_type, len(body), stun.COOKIE) + ID + body


@pytest.mark.parametrize(
    ("data", "mapped"),
    [
        (RFC_RESPONSE_IPV4, HostPort("192.0.2.1", 32853)),
        (RFC_RESPONSE_IPV6, HostPort("2001:db8:1234:5678:11:2233:4455:6677", 32853)),
    ],
)
def test_sample_responses_of_the_rfc_are_read(data: bytes, mapped: HostPort) -> None:
    assert parse_response(data) == BindingSuccess(ID, mapped, None, None)


def test_request_is_these_bytes() -> None:
    assert encode_request(ID, Change.IP | Change.PORT).hex() == (
        "000100102112a442b7e7a701bc34d686fa87dfae"  # Binding request, 16 bytes
        "0003000400000006"  # CHANGE-REQUEST: address and port
        "80280004ece90f05"  # FINGERPRINT
    )


@pytest.mark.parametrize("change", [Change.NONE, Change.PORT, Change.IP, Change.IP | Change.PORT])
def test_request_comes_out_as_it_went_in(change: Change) -> None:
    request = parse_request(encode_request(ID, change))
    assert request is not None
    assert (request.transaction_id, request.change) == (ID, change)
    assert request.has_fingerprint
    assert request.not_understood == ()


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_response_comes_out_as_it_went_in(host: str) -> None:
    request = parse_request(encode_request(ID))
    assert request is not None
    data = encode_success(
        request, mapped=HostPort(host, 1), origin=HostPort(host, 2), other=HostPort(host, 65535)
    )
    assert parse_response(data) == BindingSuccess(
        ID, HostPort(host, 1), HostPort(host, 2), HostPort(host, 65535)
    )
    plain = stun.parse_message(data).attributes["MAPPED-ADDRESS"]
    assert plain == (host, 1)


def test_refusal_names_what_was_not_understood_and_aioice_can_read_it() -> None:
    request = parse_request(message((0x0055, bytes(8)), (0x7777, bytes(4)), (0x8022, b"abc")))
    assert request is not None
    assert request.not_understood == (0x0055, 0x7777)
    data = encode_unknown_attribute(request, request.not_understood)
    assert parse_response(data) == BindingError(ID, 420, "Unknown Attribute")
    assert bytes.fromhex("000a000400557777") in data
    assert stun.parse_message(data).error_code == 420


@pytest.mark.parametrize("value", [b"\x10\x01", b"\x10\x01\0\0"])
def test_response_port_is_read_in_both_its_lengths(value: bytes) -> None:
    request = parse_request(message((0x0027, value)))
    assert request is not None
    assert request.response_port == 0x1001
    assert request.not_understood == ()


def test_refusal_of_a_request_with_fingerprint_has_one() -> None:
    request = parse_request(encode_request(ID))
    assert request is not None
    data = encode_unknown_attribute(request, (0x7FFF,))
    assert "FINGERPRINT" in stun.parse_message(data).attributes
    assert len(data) % 4 == 0


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("empty", b""),
        ("half a header", message()[:19]),
        ("no cookie, as in RFC 3489", message().replace(bytes.fromhex("2112a442"), bytes(4))),
        ("the first two bits of another protocol", message(message_type=0x8001)),
        ("longer than it says", message() + bytes(4)),
        ("shorter than it says", message((0x8022, b"abcd"))[:-4]),
        ("a length not divisible by four", message()[:2] + b"\0\1" + message()[4:] + b"\0"),
        ("an attribute beyond the end", message((0x8022, b"abcd"))[:22] + b"\0\5abcd"),
        ("an address of three bytes", message((0x0020, bytes(3)))),
        ("an address of an unknown family", message((0x0001, b"\0\3" + bytes(6)))),
        ("CHANGE-REQUEST of one byte", message((0x0003, b"\6"))),
        ("a user name that is no UTF-8", message((0x0006, b"\xff\xfe"))),
        ("a wrong fingerprint", message((0x8028, bytes(4)))),
        ("an unknown method", message(message_type=0x0FF1)),
        ("many attributes", message(*[(0x8022, b"")] * 33)),
        ("a long one", message((0x8022, bytes(MAX_STUN_BYTES)))),
    ],
)
def test_malformed_message_is_refused(what: str, data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_request(data)
    with pytest.raises(RemoteProtocolError):
        parse_response(data)


@pytest.mark.parametrize("value", [b"", b"\0\0", b"\0\0\0\1", b"\x10\x01\0\0\0\0\0\0"])
def test_response_port_that_is_none_is_refused(value: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="RESPONSE-PORT"):
        parse_request(message((0x0027, value)))


def test_thirty_two_attributes_are_as_many_as_may_be() -> None:
    assert parse_request(message(*[(0x8000 + number, b"") for number in range(32)]))


@pytest.mark.parametrize("message_type", [0x0011, 0x0101, 0x0111, 0x0003])
def test_what_is_no_binding_request_is_never_taken_for_one(message_type: int) -> None:
    data = message((0x0020, bytes.fromhex("0001a147e112a643")), message_type=message_type)
    assert parse_request(data) is None


@pytest.mark.parametrize("message_type", [0x0001, 0x0011, 0x0103])
def test_what_is_no_binding_response_is_never_taken_for_one(message_type: int) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_response(message(message_type=message_type))


def test_response_without_mapped_address_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="without the mapped address"):
        parse_response(message(message_type=0x0101))


def test_response_that_needs_to_be_understood_is_refused_when_it_is_not() -> None:
    with pytest.raises(RemoteProtocolError, match="not understood"):
        parse_response(message((0x7777, b""), message_type=0x0101))


def test_error_without_code_is_still_an_error() -> None:
    assert parse_response(message(message_type=0x0111)) == BindingError(ID, 0, "no ERROR-CODE")


def test_length_of_a_message_is_known_from_its_header() -> None:
    data = encode_request(ID, Change.PORT)
    assert message_length(data[:20]) == len(data)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([0x0001, 0x0101, 0x0111]))
def test_no_bytes_do_anything_but_parse_or_be_refused(body: bytes, message_type: int) -> None:
    body = body[: len(body) // 4 * 4]
    data = struct.pack("!HHI", message_type, len(body), stun.COOKIE) + ID + body
    with suppress(RemoteProtocolError):
        request = parse_request(data)
        assert request is None or request.transaction_id == ID
    with suppress(RemoteProtocolError):
        assert parse_response(data).transaction_id == ID
