"""PCP's MAP request and response (RFC 6887). Sans-IO."""

import ipaddress
import struct
from dataclasses import dataclass

from protocol.errors import RemoteProtocolError
from protocol.uri import HostPort

NONCE_BYTES = 12
SUCCESS = 0
UNSUPPORTED_VERSION = 1

_VERSION = 2
_MAP = 1
_RESPONSE_BIT = 0x80
_REQUEST = struct.Struct("!BBxxI16s")
_RESPONSE = struct.Struct("!BBxBII12x")
_MAP_BODY = struct.Struct("!12sB3xHH16s")
_NO_ADDRESS = ipaddress.IPv6Address("::ffff:0.0.0.0").packed


@dataclass(frozen=True, slots=True)
class PcpMapResponse:
    """What the router answered."""

    result: int
    """0 is success; other numbers as in RFC 6887 section 7.4."""
    lifetime_s: int
    external: HostPort
    """The public endpoint of the mapping; it means nothing unless the result is success."""


def encode_map_request(
    *,
    nonce: bytes,
    ip_protocol: int,
    client_host: str,
    internal_port: int,
    external_port: int,
    lifetime_s: int,
) -> bytes:
    """A request to map the port, to renew that (the same nonce), or with lifetime 0 to end it.

    ``client_host``: this machine's address as the packet will carry it, so that the router notices
    a NAT between; ``external_port``: the one that is wished for, 0 for any.
    """
    header = _REQUEST.pack(_VERSION, _MAP, lifetime_s, _pack_address(client_host))
    return header + _MAP_BODY.pack(nonce, ip_protocol, internal_port, external_port, _NO_ADDRESS)


def parse_map_response(
    data: bytes, *, nonce: bytes, ip_protocol: int, internal_port: int
) -> PcpMapResponse | None:
    """The answer to the request with these values; None when it answers another.

    A router that knows no PCP answers in its own version and is reported as
    :data:`UNSUPPORTED_VERSION`. Raises :class:`RemoteProtocolError`.
    """
    if len(data) < 4:
        raise RemoteProtocolError(f"PCP response of {len(data)} bytes")
    if data[0] != _VERSION:
        return PcpMapResponse(UNSUPPORTED_VERSION, 0, HostPort("", 0))
    if len(data) < _RESPONSE.size:
        raise RemoteProtocolError(f"PCP response of {len(data)} bytes")
    _version, opcode, result, lifetime_s, _epoch = _RESPONSE.unpack_from(data)
    if opcode != _RESPONSE_BIT | _MAP:
        return None
    if len(data) < _RESPONSE.size + _MAP_BODY.size:
        if result != SUCCESS:
            return PcpMapResponse(result, lifetime_s, HostPort("", 0))
        raise RemoteProtocolError(f"PCP MAP response of {len(data)} bytes")
    fields = _MAP_BODY.unpack_from(data, _RESPONSE.size)
    if fields[:3] != (nonce, ip_protocol, internal_port):
        return None
    *_, external_port, packed = fields
    return PcpMapResponse(result, lifetime_s, HostPort(_unpack_address(packed), external_port))


def _pack_address(host: str) -> bytes:
    """IPv4 addresses travel as IPv4-mapped IPv6 addresses."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv4Address):
        return ipaddress.IPv6Address(f"::ffff:{address}").packed
    return address.packed


def _unpack_address(packed: bytes) -> str:
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)
