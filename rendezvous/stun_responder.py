"""What a STUN server answers to each packet, and what it leaves unanswered. Sans-IO.

Invariants: an answer goes only to where the request came from; it is never longer than
:data:`MAX_AMPLIFICATION` times the request, IP and UDP headers included; nothing malformed, no
response and no indication is ever answered; the work for a packet is bounded by its size.
"""

import enum
from dataclasses import dataclass

from protocol.errors import RemoteProtocolError
from protocol.uri import HostPort
from rendezvous.stun_message import (
    BindingRequest,
    Change,
    encode_success,
    encode_unknown_attribute,
    parse_request,
)
from rendezvous.stun_rate_limit import SourceRateLimiter

MAX_AMPLIFICATION = 2.5
"""A bare IPv6 request is 68 bytes on the wire, its answer with both addresses 164."""

CHANGE_REQUEST_TYPE = 0x0003


class DropReason(enum.StrEnum):
    """Why a packet or a connection got no answer."""

    MALFORMED = "malformed"
    NOT_A_REQUEST = "not-a-request"
    RATE_LIMITED = "rate-limited"
    SEND_FAILED = "send-failed"
    TOO_MANY_CONNECTIONS = "too-many-connections"
    IDLE = "idle"
    SLOW_READER = "slow-reader"


@dataclass(frozen=True, slots=True)
class ServerEndpoints:
    """The addresses and ports that one STUN server has, all of one address family."""

    hosts: tuple[str, ...]
    """One or two addresses; the wildcard address stands alone."""
    ports: tuple[int, int]

    def moved(self, local: HostPort, change: Change) -> HostPort | None:
        """Where an answer to a request that came in at ``local`` leaves; None if it cannot."""
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


class StunResponder:
    """Answers Binding requests (RFC 8489) with all of RFC 5780 that the endpoints allow.

    PADDING and RESPONSE-PORT are optional there and refused with 420: the one is for making large
    packets, the other sends them to ports that did not ask. With one address a change of the port
    alone is granted, which lets a client tell port-dependent filtering from the rest.
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
        if request.not_understood:
            return Answer(encode_unknown_attribute(request, request.not_understood), local)
        return self._success(request, source, local, connected)

    def _success(
        self, request: BindingRequest, source: HostPort, local: HostPort, connected: bool
    ) -> Answer:
        change = request.change
        origin = self._endpoints.moved(local, change)
        if origin is None or (connected and change):
            return Answer(encode_unknown_attribute(request, (CHANGE_REQUEST_TYPE,)), local)
        other = self._endpoints.moved(local, Change.IP | Change.PORT)
        return Answer(encode_success(request, mapped=source, origin=origin, other=other), origin)
