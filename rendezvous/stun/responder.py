"""What a STUN server answers to each packet, and what it leaves unanswered. Sans-IO.

Invariants: an answer goes only to the address that the request came from; it is never longer than
:data:`MAX_AMPLIFICATION` times the request, IP and UDP headers included; nothing malformed, no
response and no indication is ever answered; the work for a packet is bounded by its size.
"""

import enum
from dataclasses import dataclass

from protocol.errors import RemoteProtocolError
from protocol.uri import HostPort
from rendezvous.stun.message import (
    CHANGE_REQUEST_TYPE,
    PADDING_TYPE,
    RESPONSE_PORT_TYPE,
    BindingRequest,
    Change,
    encode_bad_request,
    encode_success,
    encode_unknown_attribute,
    parse_request,
)
from rendezvous.stun.rate_limit import SourceRateLimiter

MAX_AMPLIFICATION = 2.5
"""A bare IPv6 request is 68 bytes on the wire, its answer with both addresses 164."""


class DropReason(enum.StrEnum):
    """Why a packet or a connection got no answer."""

    MALFORMED = "malformed"
    NOT_A_REQUEST = "not-a-request"
    RATE_LIMITED = "rate-limited"
    SEND_FAILED = "send-failed"
    TOO_MANY_CONNECTIONS = "too-many-connections"
    IDLE = "idle"
    SLOW_READER = "slow-reader"
    FAILED = "failed"
    """The responder raised: a fault of this program."""


@dataclass(frozen=True, slots=True)
class ServerEndpoints:
    """The addresses and ports that one STUN server has, all of one address family."""

    hosts: tuple[str, ...]
    """One or two addresses; the wildcard address stands alone."""
    ports: tuple[int, int]

    def moved(self, local: HostPort, change: Change) -> HostPort | None:
        """The endpoint from which an answer to a request at ``local`` leaves; None if it cannot."""
        host, port = local.host, local.port
        if change & Change.IP:
            if len(self.hosts) < 2:
                return None
            host = self.hosts[1 - self.hosts.index(host)]
        if change & Change.PORT:
            port = self.ports[1 - self.ports.index(port)]
        return HostPort(host, port)


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes for the sender of a request, to leave from ``origin``."""

    data: bytes
    origin: HostPort
    to_port: int
    """A port of the sender's."""


class StunResponder:
    """Answers Binding requests (RFC 8489) with all of RFC 5780 that the endpoints allow.

    It departs from RFC 5780 twice. PADDING is answered with as much as came and not with a whole
    packet, which would make an amplifier. And with one address a change of the port alone is
    granted, where the RFC refuses any change: so a client can tell whether its NAT filters by port.
    """

    def __init__(self, endpoints: ServerEndpoints, limiter: SourceRateLimiter) -> None:
        self._endpoints = endpoints
        self._limiter = limiter

    def answer(
        self, data: bytes, *, source: HostPort, local: HostPort, connected: bool, now: float
    ) -> Answer | DropReason:
        """The answer to ``data``, which came from ``source`` to our ``local``.

        ``connected``: over TCP, where an answer cannot come from elsewhere.
        """
        if not self._limiter.allow(source.host, now):
            return DropReason.RATE_LIMITED
        try:
            request = parse_request(data)
        except RemoteProtocolError:
            return DropReason.MALFORMED
        if request is None:
            return DropReason.NOT_A_REQUEST
        if refused := self._cannot(request, local, connected=connected):
            return Answer(encode_unknown_attribute(request, refused), local, source.port)
        if request.padding_bytes is not None and request.response_port is not None:
            return Answer(encode_bad_request(request), local, source.port)
        origin = self._endpoints.moved(local, request.change) or local
        other = self._endpoints.moved(local, Change.IP | Change.PORT)
        data = encode_success(request, mapped=source, origin=origin, other=other)
        return Answer(data, origin, request.response_port or source.port)

    def _cannot(
        self, request: BindingRequest, local: HostPort, *, connected: bool
    ) -> tuple[int, ...]:
        """The types of attributes that ask for what cannot be done."""
        cannot = list(request.not_understood)
        if self._endpoints.moved(local, request.change) is None or (connected and request.change):
            cannot.append(CHANGE_REQUEST_TYPE)
        if connected and request.response_port is not None:
            cannot.append(RESPONSE_PORT_TYPE)
        if connected and request.padding_bytes is not None:
            cannot.append(PADDING_TYPE)
        return tuple(cannot)
