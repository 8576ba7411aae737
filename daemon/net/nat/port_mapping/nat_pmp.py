"""NAT-PMP's requests and responses (RFC 6886). Sans-IO."""

import socket
import struct
from dataclasses import dataclass

from protocol.errors import RemoteProtocolError

SUCCESS = 0

_VERSION = 0
_EXTERNAL_ADDRESS = 0
_MAP_UDP = 1
_MAP_TCP = 2
_RESPONSE_BIT = 0x80
_ADDRESS_RESPONSE = struct.Struct("!BBHI4s")
_MAP_REQUEST = struct.Struct("!BBxxHHI")
_MAP_RESPONSE = struct.Struct("!BBHIHHI")
_RESULT = struct.Struct("!BBH")


@dataclass(frozen=True, slots=True)
class NatPmpAddressResponse:
    """The router's public address."""

    result: int
    """0 is success; other numbers as in RFC 6886 section 3.5."""
    host: str


@dataclass(frozen=True, slots=True)
class NatPmpMapResponse:
    """What became of the request for a mapping."""

    result: int
    external_port: int
    lifetime_s: int


def encode_address_request() -> bytes:
    """A request for the router's public address."""
    return bytes((_VERSION, _EXTERNAL_ADDRESS))


def encode_map_request(
    *, tcp: bool, internal_port: int, external_port: int, lifetime_s: int
) -> bytes:
    """A request to map the port, or to renew that; with lifetime and external port 0, to end it."""
    operation = _MAP_TCP if tcp else _MAP_UDP
    return _MAP_REQUEST.pack(_VERSION, operation, internal_port, external_port, lifetime_s)


def parse_address_response(data: bytes) -> NatPmpAddressResponse | None:
    """The answer to an address request, None for another; raises RemoteProtocolError."""
    operation, result = _read_result(data)
    if operation != _EXTERNAL_ADDRESS:
        return None
    if result != SUCCESS:
        return NatPmpAddressResponse(result, "")
    if len(data) < _ADDRESS_RESPONSE.size:
        raise RemoteProtocolError(f"NAT-PMP address of {len(data)} bytes")
    *_, packed = _ADDRESS_RESPONSE.unpack_from(data)
    return NatPmpAddressResponse(result, socket.inet_ntoa(packed))


def parse_map_response(data: bytes, *, tcp: bool, internal_port: int) -> NatPmpMapResponse | None:
    """The answer to such a map request, None for another; raises RemoteProtocolError."""
    operation, result = _read_result(data)
    if operation != (_MAP_TCP if tcp else _MAP_UDP):
        return None
    if len(data) < _MAP_RESPONSE.size:
        if result != SUCCESS:
            return NatPmpMapResponse(result, 0, 0)
        raise RemoteProtocolError(f"NAT-PMP mapping of {len(data)} bytes")
    *_, port, external_port, lifetime_s = _MAP_RESPONSE.unpack_from(data)
    if port != internal_port:
        return None
    return NatPmpMapResponse(result, external_port, lifetime_s)


def _read_result(data: bytes) -> tuple[int, int]:
    if len(data) < _RESULT.size:
        raise RemoteProtocolError(f"NAT-PMP response of {len(data)} bytes")
    version, operation, result = _RESULT.unpack_from(data)
    if version != _VERSION or not operation & _RESPONSE_BIT:
        raise RemoteProtocolError(f"no NAT-PMP response: version {version}, operation {operation}")
    return operation & ~_RESPONSE_BIT, result
