"""A NAT and STUN servers as data, to drive a discovery without sockets or time."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

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
from protocol.statements.nat_behavior import Dependence, FamilyBehavior, PortAllocation
from protocol.uri import HostPort
from rendezvous.stun.message import Change
from rendezvous.stun.responder import ServerEndpoints

LOCAL_HOST = "192.168.1.10"
PUBLIC_HOST = "203.0.113.7"

TWO_ADDRESSES = ServerEndpoints(("198.51.100.1", "192.0.2.1"), (3478, 3479))
ONE_ADDRESS = ServerEndpoints(("198.51.100.1",), (3478, 3479))
ANOTHER_ADDRESS = ServerEndpoints(("198.51.100.9",), (4478, 4479))


def endpoints_of(server: ServerEndpoints) -> list[HostPort]:
    return [HostPort(host, port) for host in server.hosts for port in server.ports]


@dataclass
class ModelNat:
    """As RFC 4787 describes it. Ports of new mappings start at 40000."""

    mapping: Dependence = Dependence.ENDPOINT_INDEPENDENT
    filtering: Dependence = Dependence.ADDRESS_AND_PORT_DEPENDENT
    allocation: PortAllocation = PortAllocation.RANDOM
    delta: int = 1
    translates: bool = True
    hairpins: bool = False
    passes_udp: bool = True
    passes_tcp: bool = True
    choose: random.Random = field(default_factory=lambda: random.Random(1))
    first_port: int = 40_000
    mappings: dict[tuple[object, ...], HostPort] = field(default_factory=dict)
    sent_to: dict[Flow, set[HostPort]] = field(default_factory=dict)

    def send(self, flow: Flow, local: HostPort, remote: HostPort) -> HostPort:
        """The public endpoint under which the packet arrives."""
        self.sent_to.setdefault(flow, set()).add(remote)
        if not self.translates:
            return local
        key: tuple[object, ...] = (flow,)
        if self.mapping is not Dependence.ENDPOINT_INDEPENDENT:
            key += (remote.host,)
        if self.mapping is Dependence.ADDRESS_AND_PORT_DEPENDENT:
            key += (remote.port,)
        if key not in self.mappings:
            self.mappings[key] = HostPort(PUBLIC_HOST, self._new_port(local))
        return self.mappings[key]

    def lets_in(self, flow: Flow, remote: HostPort) -> bool:
        sent_to = self.sent_to[flow]
        match self.filtering:
            case Dependence.ENDPOINT_INDEPENDENT:
                return True
            case Dependence.ADDRESS_DEPENDENT:
                return remote.host in {endpoint.host for endpoint in sent_to}
            case _:
                return remote in sent_to

    def passes(self, transport: Transport) -> bool:
        return self.passes_udp if transport is Transport.UDP else self.passes_tcp

    def _new_port(self, local: HostPort) -> int:
        match self.allocation:
            case PortAllocation.PRESERVING:
                return local.port
            case PortAllocation.SEQUENTIAL:
                port, self.first_port = self.first_port, self.first_port + self.delta
                return port % 65536
            case _:
                return self.choose.randrange(1024, 65536)


class Network:
    """Answers the probes of a discovery."""

    def __init__(self, nat: ModelNat, servers: Sequence[ServerEndpoints]) -> None:
        self.nat = nat
        self._servers = {
            endpoint: server for server in servers for endpoint in endpoints_of(server)
        }
        self._local_ports: dict[Flow, HostPort] = {}
        self._choose = random.Random(2)

    def bind(self, probe: BindingProbe) -> BindingOutcome:
        local = self._local_ports.setdefault(
            probe.flow, HostPort(LOCAL_HOST, self._choose.randrange(32768, 61000))
        )
        server = self._servers.get(probe.server)
        if not self.nat.passes(probe.flow.transport):
            return NoAnswer.SILENT
        mapped = self.nat.send(probe.flow, local, probe.server)
        if server is None:
            return NoAnswer.SILENT
        origin = server.moved(probe.server, probe.change)
        if origin is None:
            return NoAnswer.REFUSED
        if not self.nat.lets_in(probe.flow, origin):
            return NoAnswer.SILENT
        return Answered(local, mapped, server.moved(probe.server, Change.IP | Change.PORT))

    def hairpin(self, probe: HairpinProbe) -> bool:
        # Each sends to where it believes the other to be, right only for independent mappings.
        return self.nat.hairpins and self.nat.mapping is Dependence.ENDPOINT_INDEPENDENT


def discover(
    nat: ModelNat,
    servers: Sequence[ServerEndpoints],
    *,
    asked: Sequence[HostPort] | None = None,
    order: random.Random | None = None,
) -> tuple[FamilyBehavior, list[Probe]]:
    """The behaviour discovered behind ``nat``, and the probes in the order of their ends.

    ``asked``: the endpoints that the peer knows of, by default each server's first; ``order``: lets
    probes end in any order.
    """
    known = [endpoints_of(server)[0] for server in servers] if asked is None else asked
    discovery = BehaviorDiscovery(known)
    network = Network(nat, servers)
    waiting: list[Probe] = discovery.start()
    ended: list[Probe] = []
    while waiting:
        probe = waiting.pop(order.randrange(len(waiting)) if order else 0)
        ended.append(probe)
        match probe:
            case BindingProbe():
                waiting += discovery.binding_ended(probe, network.bind(probe))
            case HairpinProbe():
                waiting += discovery.hairpin_ended(probe, received=network.hairpin(probe))
    assert discovery.is_done
    return discovery.result(), ended
