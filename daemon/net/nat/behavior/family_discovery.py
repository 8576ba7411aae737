"""How a NAT behaves over one address family, both transports and hairpinning. Sans-IO.

The shell sends the probes that it is given, all at once, and reports the outcome of each, which
yields further ones. :meth:`BehaviorDiscovery.result` can be asked at any time, so that a deadline
costs what is not known yet and nothing else.
"""

import enum
from collections.abc import Sequence

from daemon.net.nat.behavior.probe import (
    Answered,
    BindingOutcome,
    BindingProbe,
    Flow,
    HairpinProbe,
    Probe,
    Transport,
)
from daemon.net.nat.behavior.transport_discovery import (
    AllocationDiscovery,
    Stage,
    TransportDiscovery,
)
from protocol.statements.nat_behavior import Dependence, FamilyBehavior, TransportBehavior
from protocol.uri import HostPort

HAIRPIN_FLOW = Flow(Transport.UDP, "hairpin")


class _Hairpin(enum.Enum):
    NOT_TRIED = enum.auto()
    RECEIVED = enum.auto()
    NOTHING_RECEIVED = enum.auto()


class BehaviorDiscovery:
    """One discovery, from :meth:`start` until :attr:`is_done`."""

    def __init__(self, servers: Sequence[HostPort]) -> None:
        """``servers``: STUN servers by IP address, all of one family, the nearest first.

        Two ports of one address tell port dependence; a server with two addresses tells all.
        """
        self._discoveries = {
            transport: TransportDiscovery(transport, servers) for transport in Transport
        }
        self._allocations: dict[Transport, AllocationDiscovery] = {}
        self._waiting: set[Probe] = set()
        self._hairpin_started = False
        self._hairpin = _Hairpin.NOT_TRIED

    @property
    def is_done(self) -> bool:
        """Whether every probe has ended."""
        return not self._waiting

    def start(self) -> list[Probe]:
        """The first probes."""
        return self._send(
            [probe for discovery in self._discoveries.values() for probe in discovery.start()]
        )

    def binding_ended(self, probe: BindingProbe, outcome: BindingOutcome) -> list[Probe]:
        """Take in what became of a Binding request; returns the probes to send next."""
        self._waiting.discard(probe)
        transport = probe.flow.transport
        probes: list[Probe] = []
        if transport in self._allocations:
            self._allocations[transport].probe_ended(outcome)
        elif probe.flow == HAIRPIN_FLOW:
            probes += self._hairpin_probes(outcome)
        else:
            probes += self._discoveries[transport].probe_ended(probe, outcome)
            probes += self._hairpin_binding()
        return self._send(probes or self._allocation_probes())

    def hairpin_ended(self, probe: HairpinProbe, *, received: bool) -> list[Probe]:
        """Take in whether a packet came back in; returns the probes to send next."""
        self._waiting.discard(probe)
        self._hairpin = _Hairpin.RECEIVED if received else _Hairpin.NOTHING_RECEIVED
        return self._send(self._allocation_probes())

    def result(self) -> FamilyBehavior:
        """What is known so far."""
        udp = self._transport_result(Transport.UDP)
        return FamilyBehavior(
            udp=udp,
            tcp=self._transport_result(Transport.TCP),
            hairpinning=self._hairpinning(udp.mapping),
        )

    def _transport_result(self, transport: Transport) -> TransportBehavior:
        allocation = self._allocations.get(transport)
        discovery = self._discoveries[transport]
        return discovery.result(*allocation.result()) if allocation else discovery.result()

    def _hairpinning(self, mapping: Dependence) -> bool | None:
        match self._hairpin:
            case _Hairpin.RECEIVED:
                return True
            case _Hairpin.NOTHING_RECEIVED if mapping is Dependence.ENDPOINT_INDEPENDENT:
                return False
            case _:
                # Other mappings have another public endpoint towards the NAT itself, so that the
                # packets may have gone to none at all.
                return None

    def _hairpin_binding(self) -> list[Probe]:
        """The probe that opens a second flow to hairpin with, once the first one is known to be
        translated."""
        udp = self._discoveries[Transport.UDP]
        if self._hairpin_started or udp.chosen is None or not udp.chosen.is_translated:
            return []
        self._hairpin_started = True
        return [BindingProbe(HAIRPIN_FLOW, udp.chosen_server)]

    def _hairpin_probes(self, outcome: BindingOutcome) -> list[Probe]:
        udp = self._discoveries[Transport.UDP]
        if udp.chosen is None or not isinstance(outcome, Answered):
            return []
        flows = (udp.mapping_flow, HAIRPIN_FLOW)
        return [HairpinProbe(flows, (udp.chosen.mapped, outcome.mapped))]

    def _allocation_probes(self) -> list[Probe]:
        """One probe at a time, and only while no other is under way.

        NATs may count UDP's and TCP's mappings together, and any other probe would make one.
        """
        if self._waiting:
            return []
        for transport, discovery in self._discoveries.items():
            if discovery.stage is not Stage.ENDED or discovery.chosen is None:
                continue
            if not discovery.chosen.is_translated:
                continue
            allocation = self._allocations.setdefault(
                transport, AllocationDiscovery(transport, discovery.chosen_server)
            )
            if (probe := allocation.next_probe()) is not None:
                return [probe]
        return []

    def _send(self, probes: list[Probe]) -> list[Probe]:
        self._waiting.update(probes)
        return probes
