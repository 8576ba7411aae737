"""What is asked of a router, and what came of it, in whichever protocol."""

from dataclasses import dataclass
from typing import Protocol

from daemon.net.nat.behavior.probe import Transport
from protocol.errors import TransportError
from protocol.uri import HostPort


class MappingRefusedError(TransportError):
    """The router understood and said no."""


@dataclass(frozen=True, slots=True)
class MappingRequest:
    """A port of this machine's that is to be reachable from outside."""

    transport: Transport
    internal_port: int
    external_port: int
    """The one that is wished for; the router may choose another."""
    lifetime_s: int


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A mapping that a router made."""

    method: str
    """``pcp``, ``nat-pmp`` or ``upnp``."""
    transport: Transport
    internal_port: int
    external: HostPort
    """The public endpoint, as the router says. If a STUN server sees another address, the router
    itself is behind a NAT, and the mapping is of no use from outside of that."""
    lifetime_s: int
    """0: until the router restarts."""


class MappingMethod(Protocol):
    """One way to ask one router."""

    async def map_port(self, request: MappingRequest) -> PortMapping:
        """Make a mapping or renew it; raises :class:`TransportError` in bounded time."""

    async def unmap_port(self, mapping: PortMapping) -> None:
        """Give a mapping back; raises :class:`TransportError` in bounded time."""
