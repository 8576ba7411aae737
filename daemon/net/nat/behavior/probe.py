"""The probes of a discovery and what can come of them: what its sans-IO core tells its shell."""

import enum
from dataclasses import dataclass

from protocol.uri import HostPort
from rendezvous.stun.message import Change


class Transport(enum.Enum):
    """The transport that a probe uses."""

    UDP = "udp"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Flow:
    """Probes of one flow leave from the same local port, those of another from another one."""

    transport: Transport
    purpose: str


@dataclass(frozen=True, slots=True)
class BindingProbe:
    """A Binding request to be sent."""

    flow: Flow
    server: HostPort
    change: Change = Change.NONE


@dataclass(frozen=True, slots=True)
class HairpinProbe:
    """Packets to be sent from each of two flows to the public endpoint of the other."""

    flows: tuple[Flow, Flow]
    mapped: tuple[HostPort, HostPort]


Probe = BindingProbe | HairpinProbe


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a Binding request.

    >>> home, public = HostPort("192.168.1.5", 40000), HostPort("203.0.113.5", 40000)
    >>> Answered(home, public, other=None).is_translated
    True
    """

    local: HostPort
    mapped: HostPort
    other: HostPort | None
    """The server's other address and port, if it has two addresses."""

    @property
    def is_translated(self) -> bool:
        """Whether a NAT is between this machine and the server."""
        return self.local != self.mapped


class NoAnswer(enum.Enum):
    """Why a Binding request has no answer."""

    SILENT = enum.auto()
    REFUSED = enum.auto()


BindingOutcome = Answered | NoAnswer
