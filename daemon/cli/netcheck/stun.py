"""What STUN servers tell of this machine's network, and why they tell nothing."""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daemon.net.nat.behavior.discover import discover_behavior
from daemon.net.nat.network_state import NetworkState
from daemon.net.nat.stun.resolve import ResolvedServers, resolve_servers
from protocol.statements.nat_behavior import NatBehavior
from protocol.uri import HostPort
from transport.address import is_loopback


class Silence(enum.Enum):
    """Why nothing was heard."""

    NONE_NAMED = enum.auto()
    UNRESOLVED = enum.auto()
    """No server's name leads to an address."""
    ON_THIS_MACHINE = enum.auto()
    """Nothing lies between: whatever they answer, it tells of no network and no NAT."""
    NO_ANSWER = enum.auto()


@dataclass(frozen=True, slots=True)
class StunFinding:
    """The outcome."""

    servers: tuple[HostPort, ...]
    """As they were named."""
    behavior: NatBehavior
    failures: str
    """The names that lead nowhere, and why, in words."""
    silence: Silence | None
    """Why nobody answered; None: some server did."""

    @property
    def why_silent(self) -> str:
        """Why no STUN server answered, in words; empty: some server did."""
        match self.silence:
            case Silence.NONE_NAMED:
                return "no STUN server is known"
            case Silence.UNRESOLVED:
                return f"no STUN server could be asked: {self.failures}"
            case Silence.ON_THIS_MACHINE:
                return "the servers are on this machine, where nothing can be learnt about NATs"
            case Silence.NO_ANSWER:
                return "no STUN server answers"
            case None:
                return ""


def is_elsewhere(server: HostPort, state: NetworkState) -> bool:
    """Whether what is sent to an IP endpoint leaves this machine."""
    return not is_loopback(server.host) and server.host not in state.addresses


async def ask_stun(
    servers: Sequence[HostPort],
    state: NetworkState,
    *,
    leads_out: Callable[[HostPort, NetworkState], bool] = is_elsewhere,
) -> StunFinding:
    """Ask the servers that lie outside of this machine. Never raises for what the network does."""
    resolved = await resolve_servers(servers)
    asked = [endpoint for endpoint in resolved.endpoints if leads_out(endpoint, state)]
    behavior = await discover_behavior(asked)
    return StunFinding(
        servers=tuple(servers),
        behavior=behavior,
        failures=resolved.failures_in_words,
        silence=None if behavior.reachable else _silence(resolved, asked),
    )


def _silence(resolved: ResolvedServers, asked: Sequence[HostPort]) -> Silence:
    if asked:
        return Silence.NO_ANSWER
    if resolved.endpoints:
        return Silence.ON_THIS_MACHINE
    return Silence.UNRESOLVED if resolved.failures else Silence.NONE_NAMED
