"""The local port that a connection is to be punched from, and what the outside sees of it."""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

from daemon.net.nat.behavior.conclusions import MAX_SEQUENTIAL_DELTA
from daemon.net.nat.stun.binding import Binding
from daemon.net.nat.stun.tcp import TcpBinding
from protocol.errors import TransportError
from protocol.peers.signal_messages import MAX_HOST_ENDPOINTS, MAX_SIGNAL_RTT_MS, NextPort, PunchEnd
from protocol.statements.nat_behavior import PortAllocation, TransportBehavior
from protocol.statements.nat_summary import maps_independently
from protocol.uri import HostPort

_ANY_IPV4 = "0.0.0.0"


class PunchPort:
    """A port of this machine, kept for as long as it is entered (async context manager).

    Its connections to STUN servers stay open meanwhile, so that the NAT keeps its mapping.
    """

    def __init__(
        self, servers: Sequence[HostPort], known: TransportBehavior, hosts: Sequence[str]
    ) -> None:
        """``servers``: IPv4 endpoints of STUN servers; ``known``: what the NAT was seen to do with
        TCP; ``hosts``: this machine's own addresses."""
        self._servers = servers
        self._known = known
        self._hosts = hosts
        self._resources = ExitStack()
        self._bindings: list[Binding] = []
        self.number = 0

    async def __aenter__(self) -> "PunchPort":
        """Raises :class:`TransportError` without a free port. A silent STUN server is none."""
        try:
            self.number = self._reserve()
            # The order counts where ports are given out in sequence: it is that of the SYNs.
            outcomes = await asyncio.gather(
                *(self._ask(server) for server in self._servers_to_ask())
            )
        except BaseException:
            self._resources.close()
            raise
        self._bindings = [binding for binding in outcomes if binding is not None]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._resources.close()

    def end(self, *, signal_rtt_s: float | None) -> PunchEnd:
        """What the other peer is told."""
        port, step = next_port(self._known, [binding.mapped.port for binding in self._bindings])
        rtt_ms = round((signal_rtt_s or 0.0) * 1000)
        return PunchEnd(
            public=str(self._bindings[-1].mapped) if self._bindings else "",
            hosts=tuple(
                str(HostPort(host, self.number)) for host in self._hosts[:MAX_HOST_ENDPOINTS]
            ),
            next_port=port,
            port_step=step,
            signal_rtt_ms=min(rtt_ms, MAX_SIGNAL_RTT_MS),
        )

    def _reserve(self) -> int:
        """A free port, bound but not listened on, so that others can connect from it too."""
        kept = self._resources.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            kept.bind((_ANY_IPV4, 0))
        except OSError as error:
            raise TransportError(f"no free local port: {error.strerror}") from error
        return int(kept.getsockname()[1])

    def _servers_to_ask(self) -> Sequence[HostPort]:
        """One tells the mapping; two tell whether and how it differs for another endpoint."""
        independent = self._known.translated is False or maps_independently(self._known.mapping)
        return self._servers[: 1 if independent else 2]

    async def _ask(self, server: HostPort) -> Binding | None:
        try:
            opened, binding = await TcpBinding.open(server, HostPort(_ANY_IPV4, self.number))
        except TransportError:
            return None  # The caller says that there is no public endpoint.
        self._resources.callback(opened.close)
        return binding


def next_port(known: TransportBehavior, ports: Sequence[int]) -> tuple[NextPort, int]:
    """The public port that the next connection gets, and the step to it when sequential.

    ``ports``: those that the last connections from the same local port got, none to two.

    >>> next_port(TransportBehavior(), [40000, 40002])  # Two servers saw the same local port so.
    (<NextPort.SEQUENTIAL: 'sequential'>, 1)
    >>> next_port(TransportBehavior(), [40000, 61017])
    (<NextPort.RANDOM: 'random'>, 0)
    """
    differs = not maps_independently(known.mapping)
    if len(ports) >= 2:
        differs = ports[0] != ports[1]
    if not differs:
        return NextPort.FIXED, 0
    match known.port_allocation:
        case PortAllocation.SEQUENTIAL if known.port_delta:
            return NextPort.SEQUENTIAL, known.port_delta
        case PortAllocation.RANDOM:
            return NextPort.RANDOM, 0
    if len(ports) < 2:
        return NextPort.FIXED, 0  # Nothing else is known, and most are.
    step = ports[1] - ports[0]
    if abs(step) <= MAX_SEQUENTIAL_DELTA:
        # Others may have taken ports between the two: the direction is all that it tells.
        return NextPort.SEQUENTIAL, 1 if step > 0 else -1
    return NextPort.RANDOM, 0
