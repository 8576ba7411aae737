"""The STUN server next to the rendezvous: Binding over UDP and TCP, on two ports or four endpoints.

With one address it tells clients their public endpoint and whether their NAT looks at ports; with
two it offers the whole of RFC 5780. It keeps nothing about anyone but a bounded table of rates.
"""

import asyncio
import logging
import socket
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from protocol.errors import ConfigError
from protocol.uri import HostPort
from rendezvous.stun.listen import BoundPort, bind_port
from rendezvous.stun.rate_limit import SourceRateLimiter
from rendezvous.stun.responder import Answer, DropReason, ServerEndpoints, StunResponder
from rendezvous.stun.tcp import OpenConnections, StunTcpConnection
from rendezvous.stun.udp import ReceivedPacket, StunUdpSocket
from transport.address import EVERY_ADDRESS
from transport.border import Border
from transport.clock import Clock

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StunLimits:
    """The bounds on what clients may cost."""

    source_per_s: float = 30
    source_burst: float = 200
    """The burst for one address. A whole discovery takes some forty packets, and many homes can
    share one carrier's address."""
    total_per_s: float = 10_000
    max_sources: int = 16_384
    max_connections: int = 512
    max_connections_per_source: int = 64
    idle_s: float = 90.0
    """A TCP connection that asks nothing for so long is closed."""


@dataclass(frozen=True, slots=True)
class StunCounts:
    """What happened since the start."""

    answered: int
    dropped: dict[DropReason, int]
    connections: int
    """TCP connections that are open now."""


class StunServer:
    """Answers STUN requests from entering it as an async context manager until leaving it.

    One instance serves one address family, that of ``primary``. A second address
    (``alternate_host``) must be one of this host's own, of the same family. Port 0 picks one.
    """

    def __init__(
        self,
        primary: HostPort,
        alternate_port: int,
        alternate_host: str | None = None,
        *,
        limits: StunLimits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._primary = primary
        self._alternate_port = alternate_port
        self._alternate_host = alternate_host
        self._limits = limits or StunLimits()
        self._clock = clock or Clock()
        self._connections = OpenConnections(
            total=self._limits.max_connections,
            per_source=self._limits.max_connections_per_source,
        )
        self._answered = 0
        self._dropped: Counter[DropReason] = Counter()
        self._border = Border(log)
        self._resources = ExitStack()
        self._endpoints = ServerEndpoints((), (0, 0))
        self._responder: StunResponder | None = None
        self._udp: dict[HostPort, StunUdpSocket] = {}

    @property
    def addresses(self) -> tuple[HostPort, ...]:
        """The endpoints on which it listens, over UDP and TCP alike, the primary endpoint first."""
        endpoints = self._endpoints
        return tuple(HostPort(host, port) for host in endpoints.hosts for port in endpoints.ports)

    @property
    def counts(self) -> StunCounts:
        """What it answered and what not."""
        return StunCounts(self._answered, dict(self._dropped), len(self._connections))

    async def __aenter__(self) -> "StunServer":
        """Listen. Raises :class:`ConfigError` when an address cannot be had."""
        try:
            await self._listen(await self._resolve_hosts())
        except BaseException:
            self._resources.close()
            raise
        log.info("STUN on %s", ", ".join(map(str, self.addresses)))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._resources.close()

    async def _resolve_hosts(self) -> tuple[str, ...]:
        first = await _resolve(self._primary.host, socket.AF_UNSPEC)
        if self._alternate_host is None:
            return (first,)
        family = socket.AF_INET6 if ":" in first else socket.AF_INET
        second = await _resolve(self._alternate_host, family)
        if first == second or {*EVERY_ADDRESS} & {first, second}:
            raise ConfigError(
                f"STUN on two addresses takes two different ones that others can reach, "
                f"not {first} and {second}"
            )
        return first, second

    async def _listen(self, hosts: tuple[str, ...]) -> None:
        ports = (
            self._bind_port(hosts, self._primary.port),
            self._bind_port(hosts, self._alternate_port),
        )
        limits = self._limits
        limiter = SourceRateLimiter(
            source_per_s=limits.source_per_s,
            source_burst=limits.source_burst,
            total_per_s=limits.total_per_s,
            max_sources=limits.max_sources,
        )
        self._endpoints = ServerEndpoints(hosts, (ports[0].number, ports[1].number))
        self._responder = StunResponder(self._endpoints, limiter)
        loop = asyncio.get_running_loop()
        for port in ports:
            for host, bound in zip(hosts, port.udp, strict=True):
                udp = StunUdpSocket(bound, self._receive_packet)
                self._resources.callback(udp.close)
                self._udp[HostPort(host, port.number)] = udp
        for bound in ports[0].tcp + ports[1].tcp:
            server = await loop.create_server(self._new_connection, sock=bound)
            self._resources.callback(server.close)
        self._resources.callback(self._connections.abort_all)

    def _bind_port(self, hosts: tuple[str, ...], number: int) -> BoundPort:
        port = bind_port(hosts, number)
        for bound in port.udp + port.tcp:
            self._resources.callback(bound.close)
        return port

    def _receive_packet(self, packet: ReceivedPacket) -> None:
        outcome = self._answer(packet.data, packet.source, packet.local, connected=False)
        if isinstance(outcome, DropReason):
            self.count_drop(outcome)
            return
        origin = outcome.origin
        bound_host = self._endpoints.hosts[0]
        if bound_host not in EVERY_ADDRESS:
            bound_host = origin.host
        sender = self._udp[HostPort(bound_host, origin.port)]
        to = packet.sender_at(outcome.to_port)
        if sender.send(outcome.data, to, origin.host, packet.interface):
            self._answered += 1
        else:
            self.count_drop(DropReason.SEND_FAILED)

    def _new_connection(self) -> StunTcpConnection:
        return StunTcpConnection(self, self._connections, idle_s=self._limits.idle_s)

    # What connections ask for (StunAnswerer)

    def answer_message(
        self, message: bytes, source: HostPort, local: HostPort
    ) -> bytes | DropReason:
        """See :class:`StunAnswerer`."""
        outcome = self._answer(message, source, local, connected=True)
        if isinstance(outcome, DropReason):
            return outcome
        self._answered += 1
        return outcome.data

    def _answer(
        self, data: bytes, source: HostPort, local: HostPort, *, connected: bool
    ) -> Answer | DropReason:
        assert self._responder is not None
        try:
            return self._responder.answer(
                data, source=source, local=local, connected=connected, now=self._clock.monotonic()
            )
        except Exception as error:
            self._border.failed(error, source.host)
            return DropReason.FAILED

    def count_drop(self, reason: DropReason) -> None:
        """See :class:`StunAnswerer`."""
        self._dropped[reason] += 1


async def _resolve(host: str, family: int) -> str:
    """The IP address of ``host``. Raises :class:`ConfigError`."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, None, family=family, type=socket.SOCK_DGRAM
        )
    except OSError as error:
        raise ConfigError(f"STUN cannot listen on {host}: {error.strerror}") from error
    return str(found[0][4][0])
