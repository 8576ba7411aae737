"""How a kind of path is added to the network: one maker for the kind, a seeker of it for each peer.

A maker gets what it needs of the network in :class:`PathParts`, and the rest (a relay's address,
STUN servers) when it is made.

Example (daemon/net/network.py)::

    self._makers: list[PathMaker] = [self._relays, *reach.make_paths(parts)]
    await stack.enter_async_context(maker)
    return (DirectDialer(self._parts, wish), *(maker.seeker(wish) for maker in self._makers))
"""

from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Protocol, Self

import zmq

from daemon.net.own_record import OwnRecord
from daemon.net.paths.budget import PathBudget
from daemon.net.paths.path import KnownPeers, PathOwner, PathSeeker, PathWish
from daemon.net.paths.targets import Targets
from daemon.net.refusals import Refusals
from daemon.net.signaling import Signaling
from protocol.identity import Identity
from transport.clock import Clock
from transport.curve import CurveKeys
from transport.sockets.zap import ZapAuthenticator


@dataclass(frozen=True, slots=True)
class PathParts:
    """What the network gives to a maker of paths."""

    identity: Identity
    curve: CurveKeys
    swarm_id: bytes
    context: "zmq.Context[zmq.Socket[bytes]]"
    zap: ZapAuthenticator
    owner: PathOwner
    peers: KnownPeers
    signaling: Signaling
    clock: Clock
    random: Random
    budget: PathBudget
    targets: Targets
    refusals: Refusals
    own_record: OwnRecord


class PathMaker(Protocol):
    """Makes paths of one kind. An async context manager: what all its seekers share lives within
    it, and the seekers have ended before it is left."""

    async def __aenter__(self) -> Self:
        """Raises :class:`ConfigError`."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give back what the kind needs."""

    def seeker(self, wish: PathWish) -> PathSeeker:
        """What looks for paths of this kind to one peer."""
