"""Discovers the NAT behaviour of the network that this machine is in now, over real sockets."""

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from daemon.net.nat.behavior.family_discovery import BehaviorDiscovery
from daemon.net.nat.behavior.probe import (
    Answered,
    BindingOutcome,
    BindingProbe,
    Flow,
    HairpinProbe,
    NoAnswer,
    Probe,
    Transport,
)
from daemon.net.nat.stun.binding import Binding, BindingRefusedError
from daemon.net.nat.stun.tcp import TcpBinding
from daemon.net.nat.stun.udp import UdpBindings
from protocol.errors import RemoteProtocolError, TransportError
from protocol.statements.nat_behavior import FamilyBehavior, NatBehavior
from protocol.uri import HostPort
from rendezvous.stun.message import TRANSACTION_ID_BYTES, encode_request, parse_request

log = logging.getLogger(__name__)

DISCOVERY_TIMEOUT_S = 6.0
HAIRPIN_TRIES = 3
HAIRPIN_INTERVAL_S = 0.15


async def discover_behavior(
    servers: Sequence[HostPort], *, timeout_s: float = DISCOVERY_TIMEOUT_S
) -> NatBehavior:
    """How the NAT behaves over IPv4 and IPv6, as far as ``servers`` and the time let it be known.

    ``servers``: IP endpoints of STUN servers (:func:`daemon.net.nat.stun.resolve.resolve_servers`)
    in order of preference; two ports of one of them say more than one. Takes about 1.5 s behind a
    NAT, since a filtered answer shows by its absence. Never raises for what the network does.

    Without servers nothing is known, and nothing is sent:

    >>> asyncio.run(discover_behavior([])).ipv4.udp.reachable
    False
    """
    ipv6 = [server for server in servers if ":" in server.host]
    ipv4 = [server for server in servers if ":" not in server.host]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_discover_family(family, of_family, timeout_s))
            for family, of_family in ((socket.AF_INET, ipv4), (socket.AF_INET6, ipv6))
        ]
    return NatBehavior(ipv4=tasks[0].result(), ipv6=tasks[1].result())


async def _discover_family(
    family: socket.AddressFamily, servers: list[HostPort], timeout_s: float
) -> FamilyBehavior:
    discovery = BehaviorDiscovery(servers)
    with _Flows(family) as flows:
        try:
            async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:

                async def run(probe: Probe) -> None:
                    match probe:
                        case BindingProbe():
                            outcome = await flows.bind(probe)
                            send(discovery.binding_ended(probe, outcome))
                        case HairpinProbe():
                            received = await flows.hairpin(probe)
                            send(discovery.hairpin_ended(probe, received=received))

                def send(probes: list[Probe]) -> None:
                    for probe in probes:
                        group.create_task(run(probe))

                send(discovery.start())
        except TimeoutError:
            log.info("NAT behaviour: not all found out in %g s", timeout_s)
    return discovery.result()


class _UdpFlow:
    """A UDP socket that can wait for a request which another flow sends to it through the NAT."""

    def __init__(self, udp: socket.socket) -> None:
        self.bindings = UdpBindings(udp, on_other=self._receive_other)
        self.expected = b""
        self.arrived = asyncio.Event()

    def expect(self, transaction_id: bytes, arrived: asyncio.Event) -> None:
        """Set ``arrived`` once a request with this transaction id comes in."""
        self.expected, self.arrived = transaction_id, arrived

    def _receive_other(self, data: bytes, _source: HostPort) -> None:
        try:
            request = parse_request(data)
        except RemoteProtocolError:
            return
        if request and request.transaction_id == self.expected:
            self.arrived.set()


class _Flows:
    """The sockets of a discovery. All stay open until its end, so that their mappings stay too."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self._family = family
        self._any_host = "::" if family == socket.AF_INET6 else "0.0.0.0"
        self._resources = ExitStack()
        self._udp: dict[Flow, _UdpFlow] = {}
        self._tcp: dict[Flow, HostPort] = {}
        """The local endpoint of each."""

    def __enter__(self) -> "_Flows":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._resources.close()

    async def bind(self, probe: BindingProbe) -> BindingOutcome:
        """Send a Binding request and wait for its outcome."""
        try:
            binding = await self._binding(probe)
        except BindingRefusedError:
            return NoAnswer.REFUSED
        except TransportError as error:
            log.debug("%s: %s", probe, error)
            return NoAnswer.SILENT
        return Answered(binding.local, binding.mapped, binding.other)

    async def hairpin(self, probe: HairpinProbe) -> bool:
        """Whether a packet of one flow to the other's public endpoint comes back in.

        Both send, since a NAT filters what comes back in like everything else.
        """
        flows = [self._udp[flow] for flow in probe.flows]
        arrived = asyncio.Event()
        for flow in flows:
            flow.expect(os.urandom(TRANSACTION_ID_BYTES), arrived)
        for _ in range(HAIRPIN_TRIES):
            for sender, receiver, mapped in zip(
                flows, reversed(flows), reversed(probe.mapped), strict=True
            ):
                try:
                    sender.bindings.send(encode_request(receiver.expected), mapped)
                except TransportError as error:
                    log.debug("hairpinning: %s", error)
                    return False
            try:
                async with asyncio.timeout(HAIRPIN_INTERVAL_S):
                    await arrived.wait()
            except TimeoutError:
                continue
            return True
        return False

    async def _binding(self, probe: BindingProbe) -> Binding:
        if probe.flow.transport is Transport.UDP:
            return await self._udp_flow(probe.flow).bindings.bind(probe.server, probe.change)
        opened, binding = await TcpBinding.open(probe.server, self._tcp_local(probe.flow))
        self._resources.callback(opened.close)
        return binding

    def _udp_flow(self, flow: Flow) -> _UdpFlow:
        if flow not in self._udp:
            made = self._udp[flow] = _UdpFlow(self._bound(socket.SOCK_DGRAM))
            self._resources.enter_context(made.bindings)
        return self._udp[flow]

    def _tcp_local(self, flow: Flow) -> HostPort:
        if flow not in self._tcp:
            # Not connected itself: it keeps the port for those that are.
            kept = self._bound(socket.SOCK_STREAM)
            self._tcp[flow] = HostPort(self._any_host, kept.getsockname()[1])
        return self._tcp[flow]

    def _bound(self, kind: socket.SocketKind) -> socket.socket:
        try:
            bound = self._resources.enter_context(socket.socket(self._family, kind))
            if kind == socket.SOCK_STREAM:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind((self._any_host, 0))
        except OSError as error:
            # Where IPv6 is switched off there are no such sockets.
            raise TransportError(f"no socket on {self._any_host}: {error.strerror}") from error
        return bound
