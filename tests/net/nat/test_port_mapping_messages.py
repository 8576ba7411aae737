"""The packets of PCP and NAT-PMP, byte for byte."""

import pytest

from daemon.net.nat.port_mapping import nat_pmp as nat_pmp_message
from daemon.net.nat.port_mapping import pcp as pcp_message
from daemon.net.nat.port_mapping.nat_pmp import NatPmpAddressResponse, NatPmpMapResponse
from daemon.net.nat.port_mapping.pcp import PcpMapResponse
from protocol.errors import RemoteProtocolError
from protocol.uri import HostPort

NONCE = bytes(range(12))
PCP_RESPONSE = bytes.fromhex(
    "02810000"
    + "00000e10"
    + "00000064"
    + "00" * 12  # MAP response, success, 3600 s, epoch 100
    + NONCE.hex()
    + "06000000"  # TCP
    + "9c40c350"
    + "00000000000000000000ffffcb007107"  # 40000 → 203.0.113.7:50000
)


def parse_pcp(data: bytes) -> PcpMapResponse | None:
    return pcp_message.parse_map_response(data, nonce=NONCE, ip_protocol=6, internal_port=40000)


def test_pcp_request_is_these_bytes() -> None:
    request = pcp_message.encode_map_request(
        nonce=NONCE,
        ip_protocol=6,
        client_host="192.168.1.10",
        internal_port=40000,
        external_port=50000,
        lifetime_s=3600,
    )
    assert request.hex() == (
        "02010000"
        + "00000e10"
        + "00000000000000000000ffffc0a8010a"  # MAP, 3600 s, our address
        + NONCE.hex()
        + "06000000"  # TCP
        + "9c40c350"
        + "00000000000000000000ffff00000000"  # 40000, wished for 50000, anywhere
    )


def test_pcp_request_names_an_ipv6_address_as_it_is() -> None:
    request = pcp_message.encode_map_request(
        nonce=NONCE,
        ip_protocol=17,
        client_host="2001:db8::1",
        internal_port=1,
        external_port=0,
        lifetime_s=0,
    )
    assert request[8:24].hex() == "20010db8000000000000000000000001"


def test_pcp_response_is_read() -> None:
    assert parse_pcp(PCP_RESPONSE) == PcpMapResponse(0, 3600, HostPort("203.0.113.7", 50000))


@pytest.mark.parametrize(("position", "value"), [(1, 0x82), (24, 0xFF), (36, 17), (41, 0x41)])
def test_pcp_response_to_another_request_is_none(position: int, value: int) -> None:
    other = bytearray(PCP_RESPONSE)
    other[position] = value
    assert parse_pcp(bytes(other)) is None


def test_pcp_refusal_is_read_with_and_without_its_body() -> None:
    refusal = bytes((2, 0x81, 0, 8)) + PCP_RESPONSE[4:]
    for data in (refusal, refusal[:24]):
        response = parse_pcp(data)
        assert response is not None
        assert response.result == 8


def test_router_that_knows_nat_pmp_alone_is_understood() -> None:
    response = parse_pcp(bytes.fromhex("0081000100000064"))
    assert response is not None
    assert response.result == pcp_message.UNSUPPORTED_VERSION


@pytest.mark.parametrize("length", [0, 3, 23, 24, 59])
def test_short_pcp_response_is_refused(length: int) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_pcp(PCP_RESPONSE[:length])


def test_nat_pmp_requests_are_these_bytes() -> None:
    assert nat_pmp_message.encode_address_request().hex() == "0000"
    for tcp, operation in ((True, "02"), (False, "01")):
        request = nat_pmp_message.encode_map_request(
            tcp=tcp, internal_port=40000, external_port=50000, lifetime_s=3600
        )
        assert request.hex() == f"00{operation}00009c40c35000000e10"


def test_nat_pmp_responses_are_read() -> None:
    address = bytes.fromhex("0080000000000064cb007107")
    assert nat_pmp_message.parse_address_response(address) == NatPmpAddressResponse(
        0, "203.0.113.7"
    )
    mapped = bytes.fromhex("00820000000000649c40c35000000e10")
    assert nat_pmp_message.parse_map_response(
        mapped, tcp=True, internal_port=40000
    ) == NatPmpMapResponse(0, 50000, 3600)
    assert nat_pmp_message.parse_map_response(mapped, tcp=False, internal_port=40000) is None
    assert nat_pmp_message.parse_map_response(mapped, tcp=True, internal_port=40001) is None
    assert nat_pmp_message.parse_address_response(mapped) is None
    assert nat_pmp_message.parse_map_response(address, tcp=True, internal_port=40000) is None


def test_nat_pmp_refusals_are_read() -> None:
    assert nat_pmp_message.parse_address_response(
        bytes.fromhex("0080000300000064")
    ) == NatPmpAddressResponse(3, "")
    assert nat_pmp_message.parse_map_response(
        bytes.fromhex("0082000200000064"), tcp=True, internal_port=40000
    ) == NatPmpMapResponse(2, 0, 0)


@pytest.mark.parametrize(
    "data",
    ["", "0080", "0080000000000064cb0071", "0282000000000064", "00020000", "0282000000000064" * 2],
)
def test_malformed_nat_pmp_response_is_refused(data: str) -> None:
    with pytest.raises(RemoteProtocolError):
        nat_pmp_message.parse_address_response(bytes.fromhex(data))
    if data != "0080000000000064cb0071":
        with pytest.raises(RemoteProtocolError):
            nat_pmp_message.parse_map_response(bytes.fromhex(data), tcp=True, internal_port=1)


def test_short_nat_pmp_mapping_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="mapping of 12 bytes"):
        nat_pmp_message.parse_map_response(
            bytes.fromhex("00820000000000649c40c350"), tcp=True, internal_port=40000
        )
