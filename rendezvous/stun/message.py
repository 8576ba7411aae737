"""STUN Binding messages (RFC 8489) with the attributes of behaviour discovery (RFC 5780).

The responder and the client both speak it. aioice writes and reads the attributes. This module
first checks what aioice is lenient about, so that a message is either wholly well-formed or
refused.

Invariants: nothing is looked at before the size, the cookie and every attribute's length hold; a
Binding request is the only message that is ever answered, so two servers cannot talk to each other
without end.
"""

import enum
import struct
from dataclasses import dataclass

from aioice import stun

from protocol.errors import RemoteProtocolError
from protocol.uri import HostPort

MAX_STUN_BYTES = 1600
"""Longest message: one whose PADDING alone fills an Ethernet packet; others are far shorter."""
HEADER_BYTES = stun.HEADER_LENGTH
MAX_ATTRIBUTES = 32
TRANSACTION_ID_BYTES = 12

BAD_REQUEST = 400
UNKNOWN_ATTRIBUTE = 420

CHANGE_REQUEST_TYPE = 0x0003
PADDING_TYPE = 0x0026
RESPONSE_PORT_TYPE = 0x0027

_ATTRIBUTE_HEADER = struct.Struct("!HH")
_UNKNOWN_ATTRIBUTES_TYPE = 0x000A
_FINGERPRINT_TYPE = 0x8028
_FIRST_OPTIONAL_TYPE = 0x8000
_UNDERSTOOD_TYPES = frozenset(
    {
        CHANGE_REQUEST_TYPE,
        PADDING_TYPE,
        RESPONSE_PORT_TYPE,
        0x0001,  # MAPPED-ADDRESS
        0x0004,  # SOURCE-ADDRESS and
        0x0005,  # CHANGED-ADDRESS, which servers of RFC 3489 still send
        0x0006,  # USERNAME; credentials are allowed and not asked for
        0x0008,  # MESSAGE-INTEGRITY
        0x0014,  # REALM
        0x0015,  # NONCE
        0x001C,  # MESSAGE-INTEGRITY-SHA256
        0x001D,  # PASSWORD-ALGORITHM
        0x001E,  # USERHASH
        0x0020,  # XOR-MAPPED-ADDRESS
    }
)
"""The attributes that a server must understand, and does."""


class Change(enum.IntFlag):
    """The endpoint from which the answer shall come instead of where the request went
    (CHANGE-REQUEST)."""

    NONE = 0
    PORT = 2
    IP = 4


@dataclass(frozen=True, slots=True)
class BindingRequest:
    """A well-formed Binding request."""

    transaction_id: bytes
    change: Change
    response_port: int | None
    """The port of the sender's address to which the answer shall go instead."""
    padding_bytes: int | None
    """How much PADDING it came with."""
    has_fingerprint: bool
    not_understood: tuple[int, ...]
    """Types of attributes that had to be understood and are not: answered with 420."""


@dataclass(frozen=True, slots=True)
class BindingSuccess:
    """What a server says of the sender of a Binding request."""

    transaction_id: bytes
    mapped: HostPort
    """The endpoint of the sender, as the server saw it."""
    origin: HostPort | None
    """The endpoint from which the server says that it sent this."""
    other: HostPort | None
    """The server's other address and other port, if it has a second address."""


@dataclass(frozen=True, slots=True)
class BindingError:
    """A server's refusal."""

    transaction_id: bytes
    code: int
    reason: str


BindingResponse = BindingSuccess | BindingError


def encode_request(transaction_id: bytes, change: Change = Change.NONE) -> bytes:
    """A Binding request with FINGERPRINT."""
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, transaction_id)
    if change:
        message.attributes["CHANGE-REQUEST"] = int(change)
    message.add_fingerprint()
    return bytes(message)


def encode_success(
    request: BindingRequest, *, mapped: HostPort, origin: HostPort, other: HostPort | None
) -> bytes:
    """The success response to ``request``."""
    message = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
    message.attributes["XOR-MAPPED-ADDRESS"] = _pair(mapped)
    # RFC 5780 section 6.1 wants the plain form too.
    message.attributes["MAPPED-ADDRESS"] = _pair(mapped)
    message.attributes["RESPONSE-ORIGIN"] = _pair(origin)
    if other is not None:
        message.attributes["OTHER-ADDRESS"] = _pair(other)
    data = bytes(message)
    if request.padding_bytes is not None:
        data = _append(data, PADDING_TYPE, bytes(request.padding_bytes))
    return _with_fingerprint(data) if request.has_fingerprint else data


def encode_bad_request(request: BindingRequest) -> bytes:
    """The response to a request whose attributes contradict each other."""
    return _encode_error(request, BAD_REQUEST, "Bad Request")


def encode_unknown_attribute(request: BindingRequest, attribute_types: tuple[int, ...]) -> bytes:
    """The response to a request that needs what ``attribute_types`` ask for."""
    return _encode_error(request, UNKNOWN_ATTRIBUTE, "Unknown Attribute", attribute_types)


def _encode_error(
    request: BindingRequest, code: int, reason: str, attribute_types: tuple[int, ...] = ()
) -> bytes:
    message = stun.Message(stun.Method.BINDING, stun.Class.ERROR, request.transaction_id)
    message.attributes["ERROR-CODE"] = (code, reason)
    data = bytes(message)
    if attribute_types:
        named = struct.pack(f"!{len(attribute_types)}H", *attribute_types)
        data = _append(data, _UNKNOWN_ATTRIBUTES_TYPE, named)
    return _with_fingerprint(data) if request.has_fingerprint else data


def message_length(header: bytes | bytearray) -> int:
    """How long the message is whose first :data:`HEADER_BYTES` these are: how TCP frames them.

    Raises :class:`RemoteProtocolError` when that is no STUN message or a longer one than allowed.

    >>> message_length(bytes.fromhex("0001000c2112a442") + bytes(12))
    32
    """
    message_type, length, cookie = struct.unpack_from("!HHI", header)
    if message_type & 0xC000 or cookie != stun.COOKIE:
        raise RemoteProtocolError("no STUN message")
    if length % 4 or HEADER_BYTES + length > MAX_STUN_BYTES:
        raise RemoteProtocolError(f"STUN message of {length} bytes after its header")
    return HEADER_BYTES + int(length)


def parse_request(data: bytes) -> BindingRequest | None:
    """The Binding request in ``data``; None for another well-formed message.

    Raises :class:`RemoteProtocolError` for anything malformed.
    """
    attributes, message = _parse(data)
    kind = (message.message_method, message.message_class)
    if kind != (stun.Method.BINDING, stun.Class.REQUEST):
        return None
    asked = message.attributes.get("CHANGE-REQUEST", 0)
    return BindingRequest(
        transaction_id=message.transaction_id,
        change=Change(asked & (Change.IP | Change.PORT)),
        response_port=_response_port(attributes),
        padding_bytes=len(attributes[PADDING_TYPE]) if PADDING_TYPE in attributes else None,
        has_fingerprint=_FINGERPRINT_TYPE in attributes,
        not_understood=_not_understood(attributes),
    )


def parse_response(data: bytes) -> BindingResponse:
    """The Binding response in ``data``.

    Raises :class:`RemoteProtocolError` for anything malformed, and for any other message.
    """
    raw_attributes, message = _parse(data)
    attributes = message.attributes
    if message.message_method != stun.Method.BINDING:
        raise RemoteProtocolError("no Binding response")
    if message.message_class == stun.Class.ERROR:
        code, reason = attributes.get("ERROR-CODE", (0, "no ERROR-CODE"))
        return BindingError(message.transaction_id, code, reason)
    if message.message_class != stun.Class.RESPONSE:
        raise RemoteProtocolError("no Binding response")
    if strange := _not_understood(raw_attributes):
        raise RemoteProtocolError(f"STUN attributes {strange} are not understood")
    mapped = attributes.get("XOR-MAPPED-ADDRESS") or attributes.get("MAPPED-ADDRESS")
    if mapped is None:
        raise RemoteProtocolError("Binding response without the mapped address")
    return BindingSuccess(
        transaction_id=message.transaction_id,
        mapped=HostPort(*mapped),
        origin=_host_port(attributes.get("RESPONSE-ORIGIN")),
        other=_host_port(attributes.get("OTHER-ADDRESS")),
    )


def _parse(data: bytes) -> tuple[dict[int, bytes], stun.Message]:
    if not HEADER_BYTES <= len(data) <= MAX_STUN_BYTES or message_length(data) != len(data):
        raise RemoteProtocolError(f"no STUN message in {len(data)} bytes")
    attributes = _raw_attributes(data)
    try:
        return attributes, stun.parse_message(data)
    except (ValueError, struct.error) as error:
        raise RemoteProtocolError(f"malformed STUN message: {error}") from error


def _raw_attributes(data: bytes) -> dict[int, bytes]:
    """All attributes by type, whose lengths fill the message exactly."""
    attributes: dict[int, bytes] = {}
    position = HEADER_BYTES
    for _ in range(MAX_ATTRIBUTES):
        if position == len(data):
            return attributes
        attribute_type, length = _ATTRIBUTE_HEADER.unpack_from(data, position)
        position += _ATTRIBUTE_HEADER.size
        attributes[attribute_type] = data[position : position + length]
        position += length + stun.padding_length(length)
        if position > len(data):
            raise RemoteProtocolError("STUN attribute beyond the end of its message")
    if position == len(data):
        return attributes
    raise RemoteProtocolError(f"STUN message with more than {MAX_ATTRIBUTES} attributes")


def _response_port(attributes: dict[int, bytes]) -> int | None:
    # aioice does not know this one. Two bytes, which some pad within the attribute.
    value = attributes.get(RESPONSE_PORT_TYPE)
    if value is None:
        return None
    port = int.from_bytes(value[:2], "big")
    if len(value) not in (2, 4) or port == 0:
        raise RemoteProtocolError(f"RESPONSE-PORT {value.hex()}")
    return port


def _not_understood(attributes: dict[int, bytes]) -> tuple[int, ...]:
    required = {kind for kind in attributes if kind < _FIRST_OPTIONAL_TYPE}
    return tuple(sorted(required - _UNDERSTOOD_TYPES))


def _with_fingerprint(data: bytes) -> bytes:
    return _append(data, _FINGERPRINT_TYPE, stun.pack_unsigned(stun.message_fingerprint(data)))


def _append(data: bytes, attribute_type: int, value: bytes) -> bytes:
    # aioice writes attributes that stand in a table of its own. Those that do not are appended to
    # what it wrote.
    longer = data + _ATTRIBUTE_HEADER.pack(attribute_type, len(value)) + value
    longer += bytes(stun.padding_length(len(value)))
    return stun.set_body_length(longer, len(longer) - HEADER_BYTES)


def _pair(address: HostPort) -> tuple[str, int]:
    return address.host, address.port


def _host_port(pair: tuple[str, int] | None) -> HostPort | None:
    return None if pair is None else HostPort(*pair)
