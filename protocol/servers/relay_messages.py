"""What peers and a relay say to each other, over ZeroMQ DEALER and ROUTER with CURVE.

One ZeroMQ frame is one message; its first byte says of which kind:

- ``CONTROL``: MessagePack of one of the messages below;
- ``DATA``: link number (64 bits), then sealed bytes. The relay passes the frame on as it is;
- ``CREDIT``: link number, then up to how many bytes the receiver of the credit may have sent on
  that link since it was opened (64 bits, counted from 0, never taken back).

Numbers are big-endian. What a data frame costs in credits is :func:`data_cost`. The relay knows a
connection by its CURVE key (``User-Id``), never by its routing id, and a link by the number that it
gave it, which both ends use.

>>> frame = encode_control(Ping(7))
>>> frame[0] == FrameKind.CONTROL, decode_from_client(frame)
(True, Ping(number=7))
>>> data_cost(64 * 1024)
65792
>>> decode_from_client(encode_control(Pong(7)))
Traceback (most recent call last):
protocol.errors.RemoteProtocolError: malformed message: Invalid value 'pong' - at `$[0]`
"""

import enum
import struct
from typing import Annotated

import msgspec

from protocol.codec import Message, decode, encode
from protocol.errors import RemoteProtocolError
from protocol.identity import KEY_BYTES

RELAY_VERSION = 1

MAX_SEALED_BYTES = 66 * 1024
"""A frame of 64 KiB and what TLS adds to it."""
MAX_DATA_BYTES = 4 * MAX_SEALED_BYTES
"""Sealed bytes in one data frame. What waits for credit at the same time travels together: relay
and both ends then use a sixth less CPU time for the same bytes."""
FRAME_COST_BYTES = 256
"""Charged for each data frame on top of its bytes: small frames cost memory too."""
MIN_WINDOW_BYTES = 512 * 1024
MAX_RECORDS = 16
MAX_CONSENTED_KEYS = 1024
MAX_REASON_LENGTH = 256
MAX_CONTROL_BYTES = 64 * 1024

DATA_HEADER = struct.Struct("!BQ")
CREDIT_FRAME = struct.Struct("!BQQ")
MAX_FRAME_BYTES = DATA_HEADER.size + MAX_DATA_BYTES
"""Longest frame of any kind."""


LinkNumber = Annotated[int, msgspec.Meta(ge=0)]
"""64 bits, chosen by the relay at random."""
WaitSeconds = Annotated[float, msgspec.Meta(ge=0.0, le=366 * 24 * 3600.0)]


class FrameKind(enum.IntEnum):
    """The first byte of a frame."""

    CONTROL = 0
    DATA = 1
    CREDIT = 2


class Code(enum.StrEnum):
    """Why a link was not opened, or ended, or why the relay says goodbye."""

    PEER_GONE = "peer_gone"
    """The other peer is not connected to this relay (any more)."""
    FORBIDDEN = "forbidden"
    """The other peer did not agree to talk."""
    THROTTLED = "throttled"
    """Too many requests; try again after the time that is given."""
    QUOTA = "quota"
    """A limit of the relay's operator is reached: links, bytes, peers of one network."""
    CREDIT = "credit"
    """More was sent than there was credit for."""
    STALLED = "stalled"
    """The receiver takes nothing from the relay."""
    IDLE = "idle"
    """The peer was silent for too long."""
    CLOSED = "closed"
    """An end closed it."""
    REPLACED = "replaced"
    """Another connection came with the same CURVE key."""
    STOPPING = "stopping"
    """The relay is being stopped."""
    VERSION = "version"
    """The two sides speak different versions; the older one needs an upgrade."""
    MALFORMED = "malformed"
    """The bytes are no message of this protocol, or not allowed at this point."""


class Hello(Message, tag="hello"):
    """Client: the first message of each connection; of this shape in all versions.

    All links of an earlier connection with the same CURVE key end.
    """

    version: int
    window_bytes: int
    """How much the relay may hold for this peer, per link."""


class Introduce(Message, tag="introduce"):
    """Client: under which identity this peer can be called, in which swarm."""

    record: bytes
    """Its signed peer record, whose CURVE key is this connection's."""


class Consent(Message, tag="consent"):
    """Client: whom this peer talks to in a swarm; replaces what it said before about that swarm.

    A swarm never named here: strangers are asked about.
    """

    swarm: bytes
    keys: tuple[bytes, ...]
    """CURVE keys of peers whose links open at once."""
    ask: bool
    """Others: True to be asked each time, False to forbid them."""


class Open(Message, tag="open"):
    """Client: open a link to a peer, by its CURVE key or its identity key (the other is empty)."""

    request: int
    swarm: bytes
    curve_key: bytes
    peer: bytes


class Answer(Message, tag="answer"):
    """Client: whether this peer agrees to a link that it was asked about."""

    link: LinkNumber
    agreed: bool


class Close(Message, tag="close"):
    """Client: end a link, or confirm that the relay ended it (nothing comes on it after this)."""

    link: LinkNumber
    reason: str
    """The reason, for the other end's log; not trusted, at most :data:`MAX_REASON_LENGTH`
    characters."""


class Ping(Message, tag="ping"):
    """Client: answer with the same number."""

    number: int


FromClient = Hello | Introduce | Consent | Open | Answer | Close | Ping


class Welcome(Message, tag="welcome"):
    """Relay: the connection is known from now on."""

    version: int
    window_bytes: int
    """The window that the relay grants, at most the one asked for."""
    observed_address: str
    """The address that the connection came from, without port."""
    silence_s: float
    """A connection on which nothing comes for so long, not even a ping, is closed."""


class Incoming(Message, tag="incoming"):
    """Relay: another peer opens a link to this one."""

    link: LinkNumber
    swarm: bytes
    curve_key: bytes
    """The other peer's, for which the relay vouches; who it is, the sealed link proves."""
    agreed: bool
    """True: by this peer's consent the link is open; False: answer first."""


class Opened(Message, tag="opened"):
    """Relay: the link that was asked for is open."""

    request: int
    link: LinkNumber
    curve_key: bytes
    """The CURVE key of the peer at its other end."""


class NotOpened(Message, tag="not_opened"):
    """Relay: the link that was asked for cannot be had."""

    request: int
    code: str
    text: str
    retry_after_s: WaitSeconds


class Closed(Message, tag="closed"):
    """Relay: the link ended. To be confirmed with :class:`Close`, unless that was sent already."""

    link: LinkNumber
    code: str
    text: str


class Pong(Message, tag="pong"):
    """Relay: the answer to a ping."""

    number: int


class Goodbye(Message, tag="goodbye"):
    """Relay: this connection is served no longer; all its links are gone."""

    code: str
    text: str
    retry_after_s: WaitSeconds


FromRelay = Welcome | Incoming | Opened | NotOpened | Closed | Pong | Goodbye


def encode_control(message: FromClient | FromRelay) -> bytes:
    """The frame of a control message."""
    return b"\x00" + encode(message)


def decode_from_client(frame: bytes) -> FromClient:
    """The control message of a peer. Raises :class:`RemoteProtocolError`."""
    message: FromClient = decode(_control(frame), FromClient, max_bytes=MAX_CONTROL_BYTES)
    match message:
        case Consent(swarm=swarm, keys=keys):
            if len(keys) > MAX_CONSENTED_KEYS:
                raise RemoteProtocolError(f"consent to {len(keys)} keys")
            _check_keys(swarm, *keys)
        case Open(swarm=swarm, curve_key=curve_key, peer=peer):
            _check_keys(swarm, curve_key or peer)
            if curve_key and peer:
                raise RemoteProtocolError("a link to a CURVE key and to an identity at once")
        case Close(reason=reason) if len(reason) > MAX_REASON_LENGTH:
            raise RemoteProtocolError(f"reason of {len(reason)} characters")
    return message


def decode_from_relay(frame: bytes) -> FromRelay:
    """The control message of a relay. Raises :class:`RemoteProtocolError`."""
    message: FromRelay = decode(_control(frame), FromRelay, max_bytes=MAX_CONTROL_BYTES)
    match message:
        case Incoming(swarm=swarm, curve_key=curve_key):
            _check_keys(swarm, curve_key)
        case Opened(curve_key=curve_key):
            _check_keys(curve_key)
    return message


def data_cost(sealed_bytes: int) -> int:
    """The credit that a data frame with so many sealed bytes uses."""
    return sealed_bytes + FRAME_COST_BYTES


def _control(frame: bytes) -> memoryview:
    if not frame or frame[0] != FrameKind.CONTROL:
        raise RemoteProtocolError("a frame of no known kind")
    return memoryview(frame)[1:]


def _check_keys(*keys: bytes) -> None:
    for key in keys:
        if len(key) != KEY_BYTES:
            raise RemoteProtocolError(f"key of {len(key)} bytes, {KEY_BYTES} expected")
