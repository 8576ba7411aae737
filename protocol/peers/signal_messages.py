"""What two peers tell each other through a rendezvous so that a path between them comes about.

Each kind of path adds its messages to the union :data:`SignalBody`; how they are signed, sealed and
opened is the same for all (protocol/peers/peer_signal.py).

>>> check_punch_end(PunchEnd("203.0.113.7:4711", ("10.0.0.2:4711",), NextPort.FIXED, 0, 40))
>>> check_punch_end(PunchEnd("127.0.0.1:4711", (), NextPort.FIXED, 0, 40))
Traceback (most recent call last):
protocol.peers.signal_messages.NoOtherMachineError: endpoint to ...: 127.0.0.1 is no other machine
"""

import enum
import ipaddress
import re
from typing import Annotated

import msgspec

from protocol.codec import Message
from protocol.errors import ConfigError, RemoteProtocolError
from protocol.uri import HostPort

ATTEMPT_BYTES = 16
MAX_HOST_ENDPOINTS = 8
MAX_PORT_STEP = 64
MAX_SIGNAL_RTT_MS = 10_000
MAX_REASON_LENGTH = 200
MAX_CANDIDATES = 16
MAX_LANES_AT_ONCE = 8
"""More that begin at the same moment lose much to each other."""

# RFC 8839, section 5.4, and at most as long as any library makes them.
_ICE_USERNAME = re.compile(r"[a-zA-Z0-9+/]{4,64}")
_ICE_PASSWORD = re.compile(r"[a-zA-Z0-9+/]{22,64}")
_ICE_FOUNDATION = re.compile(r"[a-zA-Z0-9+/]{1,32}")


class NextPort(enum.StrEnum):
    """The public port that a NAT gives to the next connection from the same local port."""

    FIXED = "fixed"
    """Always the same one: endpoint-independent mapping, or no NAT at all."""
    SEQUENTIAL = "sequential"
    """``port_step`` from the last one, for each further remote endpoint."""
    RANDOM = "random"
    """Another one for each remote endpoint, which nobody can tell."""


class PunchEnd(Message):
    """One end of a connection that two peers are about to open at the same moment."""

    public: str
    """``IP:PORT`` under which a STUN server saw the source port last; empty when none answers."""
    hosts: tuple[str, ...]
    """``IP:PORT`` of the source port at the machine itself: on its LANs and over IPv6."""
    next_port: NextPort
    port_step: int
    """When sequential, else 0."""
    signal_rtt_ms: int
    """The round trip from this peer to the rendezvous."""


PunchEnds = Annotated[tuple[PunchEnd, ...], msgspec.Meta(max_length=MAX_LANES_AT_ONCE)]


class PunchOffer(Message, tag="punch-offer"):
    """Let us connect to each other: here is my end, tell me yours."""

    attempt: bytes
    """Random; the answer repeats it."""
    end: PunchEnd
    has_heavy_slot: bool = False
    """Whether the sender keeps a place for an attempt with many ports, should it take one, until it
    has the reply."""


class PunchAnswer(Message, tag="punch-answer"):
    """Here is mine: begin as soon as you read this; I begin when I think that you do."""

    attempt: bytes
    end: PunchEnd


class PunchDeclined(Message, tag="punch-declined"):
    """The peer will not punch now."""

    attempt: bytes
    reason: str
    """The reason, to show to people."""
    offers_later: bool = False
    """Nothing is wrong: the sender itself makes an offer when it can."""


class LanesOffer(Message, tag="lanes-offer"):
    """Let us connect to each other several times more, beside the path that we have."""

    attempt: bytes
    """Random; the answer repeats it."""
    ends: PunchEnds
    """One for each connection."""


class LanesAnswer(Message, tag="lanes-answer"):
    """Here are mine, the first for your first, and so on; none: there is no room for more. Begin as
    soon as you read this; I begin when I think that you do."""

    attempt: bytes
    ends: PunchEnds


class CandidateType(enum.StrEnum):
    """RFC 8445, section 5.1.1; peer-reflexive ones are found, not signaled."""

    HOST = "host"
    SERVER_REFLEXIVE = "srflx"
    RELAYED = "relay"


class IceCandidate(Message):
    """One UDP endpoint of a peer."""

    endpoint: str
    """``IP:PORT``."""
    type: CandidateType
    foundation: str
    priority: int


class IceEnd(Message):
    """One end of a connection by ICE (RFC 8445)."""

    username: str
    password: str
    candidates: tuple[IceCandidate, ...]


class IceOffer(Message, tag="ice-offer"):
    """Let us check which candidates reach each other: the one who offers is controlling."""

    attempt: bytes
    """Random; the answer repeats it."""
    end: IceEnd


class IceAnswer(Message, tag="ice-answer"):
    """Here are mine, and I begin to check."""

    attempt: bytes
    end: IceEnd


class TwinNotice(Message, tag="twin"):
    """One process tells another one with the same identity that it lives, too."""


SignalBody = (
    TwinNotice
    | PunchOffer
    | PunchAnswer
    | PunchDeclined
    | LanesOffer
    | LanesAnswer
    | IceOffer
    | IceAnswer
)


def check_ice_end(end: IceEnd) -> None:
    """Raises :class:`RemoteProtocolError` unless ``end`` is within its bounds and its candidates
    are such as another machine could have."""
    if not _ICE_USERNAME.fullmatch(end.username) or not _ICE_PASSWORD.fullmatch(end.password):
        raise RemoteProtocolError("ICE user name or password of a wrong form")
    if len(end.candidates) > MAX_CANDIDATES:
        raise RemoteProtocolError(f"{len(end.candidates)} ICE candidates")
    for candidate in end.candidates:
        if not _ICE_FOUNDATION.fullmatch(candidate.foundation):
            raise RemoteProtocolError("ICE foundation of a wrong form")
        if not 0 < candidate.priority < 2**31:
            raise RemoteProtocolError(f"ICE priority {candidate.priority}")
        _check_endpoint(candidate.endpoint)


class NoOtherMachineError(RemoteProtocolError):
    """An endpoint that no other machine can have: that of a peer on the same one, mostly."""


def check_punch_end(end: PunchEnd) -> None:
    """Raises :class:`RemoteProtocolError` unless ``end`` is within its bounds and its endpoints are
    such as another machine could have."""
    if len(end.hosts) > MAX_HOST_ENDPOINTS:
        raise RemoteProtocolError(f"{len(end.hosts)} endpoints to punch to")
    if not -MAX_PORT_STEP <= end.port_step <= MAX_PORT_STEP:
        raise RemoteProtocolError(f"port step {end.port_step}")
    if not 0 <= end.signal_rtt_ms <= MAX_SIGNAL_RTT_MS:
        raise RemoteProtocolError(f"signaling round trip of {end.signal_rtt_ms} ms")
    for text in (end.public, *end.hosts):
        if text:
            _check_endpoint(text)


def _check_endpoint(text: str) -> None:
    try:
        address = ipaddress.ip_address(HostPort.parse(text).host)
    except (ConfigError, ValueError) as error:
        raise RemoteProtocolError(f"endpoint to punch to: {error}") from error
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # Python 3.11 does not see that this one is loopback.
    if (
        address.is_loopback
        or address.is_multicast
        or address.is_unspecified
        or address.is_link_local
        or address == ipaddress.IPv4Address("255.255.255.255")
    ):
        raise NoOtherMachineError(f"endpoint to punch to: {address} is no other machine")
