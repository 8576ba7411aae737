"""What a NAT does over one transport, from first probe to conclusion. Sans-IO.

Each question has local ports of its own. A packet that a port sends opens the filter for answers
and makes a mapping. So a port that was used to look at mapping shows no filtering any more, and a
port that has its mapping does not show how ports are chosen.
"""

import enum
from collections.abc import Sequence

from daemon.net.nat.behavior.conclusions import (
    FilteringOutcome,
    MappingObservation,
    conclude_allocation,
    conclude_filtering,
    conclude_mapping,
)
from daemon.net.nat.behavior.probe import (
    Answered,
    BindingOutcome,
    BindingProbe,
    Flow,
    NoAnswer,
    Transport,
)
from protocol.statements.nat_behavior import (
    WEB_PORTS,
    Dependence,
    PortAllocation,
    TransportBehavior,
)
from protocol.uri import HostPort
from rendezvous.stun.message import Change

MAX_SERVERS = 4
ALLOCATION_SAMPLES = 5
PRESERVED_SAMPLES = 2
"""So many public ports equal to local ones are no accident."""

FROM_ELSEWHERE = Change.IP | Change.PORT


class Stage(enum.Enum):
    """How far the discovery over a transport is."""

    FIRST = enum.auto()
    """Every server was asked from one local port."""
    COMPARING = enum.auto()
    """The other endpoints of one server were asked, and it was asked to answer from there."""
    ENDED = enum.auto()


class TransportDiscovery:
    """Finds out mapping and, over UDP, filtering."""

    def __init__(self, transport: Transport, servers: Sequence[HostPort]) -> None:
        self.transport = transport
        self.mapping_flow = Flow(transport, "mapping")
        self.stage = Stage.FIRST
        self.chosen: Answered | None = None
        """The answer of the server that is asked everything further."""
        self.chosen_server = HostPort("", 0)
        self._filtering_flow = Flow(transport, "filtering")
        self._servers = tuple(servers[:MAX_SERVERS])
        self._waiting: set[BindingProbe] = set()
        self._answers: dict[HostPort, Answered] = {}
        self._filtering = dict.fromkeys((FROM_ELSEWHERE, Change.PORT), FilteringOutcome.NOT_TRIED)

    def start(self) -> list[BindingProbe]:
        """The first probes."""
        if not self._servers:
            self.stage = Stage.ENDED
        return self._send([BindingProbe(self.mapping_flow, server) for server in self._servers])

    def probe_ended(self, probe: BindingProbe, outcome: BindingOutcome) -> list[BindingProbe]:
        """Take in the outcome of a probe; returns those to send next."""
        self._waiting.discard(probe)
        if probe.change:
            self._filtering[probe.change] = _filtering_outcome(outcome)
        elif isinstance(outcome, Answered):
            self._answers[probe.server] = outcome
        probes: list[BindingProbe] = []
        if self.stage is Stage.FIRST:
            probes = self._choose(probe.server)
        if self.chosen is not None and not self._waiting:
            self.stage = Stage.ENDED
        return probes

    def result(
        self, allocation: PortAllocation = PortAllocation.UNKNOWN, port_delta: int | None = None
    ) -> TransportBehavior:
        """What is known so far, with what :class:`AllocationDiscovery` found."""
        if self.chosen is None:
            return TransportBehavior()
        if any(answer.is_translated for answer in self._answers.values()):
            observations = [
                MappingObservation(server, answer.mapped)
                for server, answer in self._answers.items()
            ]
            translated, mapping = True, conclude_mapping(observations)
        else:
            translated, mapping = False, Dependence.ENDPOINT_INDEPENDENT
            allocation = PortAllocation.PRESERVING
        return TransportBehavior(
            reachable=True,
            public_host=self.chosen.mapped.host,
            translated=translated,
            mapping=mapping,
            filtering=conclude_filtering(
                from_elsewhere=self._filtering[FROM_ELSEWHERE],
                from_other_port=self._filtering[Change.PORT],
            ),
            port_allocation=allocation,
            port_delta=port_delta,
            only_web=self._only_web(),
        )

    def _only_web(self) -> bool:
        silent_ports = {server.port for server in self._servers if server not in self._answers}
        return all(server.port in WEB_PORTS for server in self._answers) and any(
            port not in WEB_PORTS for port in silent_ports
        )

    def _choose(self, answered: HostPort) -> list[BindingProbe]:
        """Go on with a server that has two addresses at once, with another one when all ended."""
        answer = self._answers.get(answered)
        if answer is None or answer.other is None:
            if self._waiting:
                return []
            if not self._answers:
                self.stage = Stage.ENDED
                return []
            answered, answer = next(iter(self._answers.items()))
        self.stage = Stage.COMPARING
        self.chosen, self.chosen_server = answer, answered
        return self._send(self._comparisons(answered, answer.other))

    def _comparisons(self, server: HostPort, other: HostPort | None) -> list[BindingProbe]:
        probes = []
        if other is not None:
            endpoints = (
                HostPort(server.host, other.port),
                HostPort(other.host, server.port),
                other,
            )
            probes += [
                BindingProbe(self.mapping_flow, endpoint)
                for endpoint in endpoints
                if endpoint not in self._servers
            ]
        if self.transport is Transport.UDP:
            changes = [Change.PORT] if other is None else [FROM_ELSEWHERE, Change.PORT]
            probes += [BindingProbe(self._filtering_flow, server, change) for change in changes]
        return probes

    def _send(self, probes: list[BindingProbe]) -> list[BindingProbe]:
        self._waiting.update(probes)
        return probes


class AllocationDiscovery:
    """Finds out how the ports of new mappings are chosen: a few, strictly one after the other."""

    def __init__(self, transport: Transport, server: HostPort) -> None:
        self._transport = transport
        self._server = server
        self._probes_sent = 0
        self._ports: list[tuple[int, int]] = []

    def next_probe(self) -> BindingProbe | None:
        """The probe to send once the one before has ended; None when enough is known."""
        preserved = all(local == public for local, public in self._ports)
        if self._probes_sent == ALLOCATION_SAMPLES or (
            preserved and len(self._ports) >= PRESERVED_SAMPLES
        ):
            return None
        self._probes_sent += 1
        flow = Flow(self._transport, f"allocation {self._probes_sent}")
        return BindingProbe(flow, self._server)

    def probe_ended(self, outcome: BindingOutcome) -> None:
        """Take in the outcome of the last probe."""
        if isinstance(outcome, Answered):
            self._ports.append((outcome.local.port, outcome.mapped.port))

    def result(self) -> tuple[PortAllocation, int | None]:
        """What is known so far: the kind, and the distance between ports if sequential."""
        return conclude_allocation(self._ports)


def _filtering_outcome(outcome: BindingOutcome) -> FilteringOutcome:
    match outcome:
        case Answered():
            return FilteringOutcome.PASSED
        case NoAnswer.SILENT:
            return FilteringOutcome.SILENT
        case NoAnswer.REFUSED:
            return FilteringOutcome.REFUSED
