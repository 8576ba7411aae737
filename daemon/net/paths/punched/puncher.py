"""What punching to any peer takes: local ports, plans, and bounds for all attempts together."""

from collections.abc import Sequence
from typing import Protocol

from daemon.net.paths.maker import PathParts
from daemon.net.paths.path import PathWish
from daemon.net.paths.punched.heavy_slot import HeavySlot
from daemon.net.paths.punched.path import PunchedPath
from daemon.net.paths.punched.plan import MANY_PORTS, PunchPlan, make_plan
from daemon.net.paths.punched.port import PunchPort
from protocol.errors import TransportError
from protocol.identity import PeerId
from protocol.peers.signal_messages import PunchEnd
from protocol.statements.nat_behavior import TransportBehavior
from protocol.statements.nat_summary import NatSummary
from protocol.uri import HostPort
from transport.sockets.connection_table import descriptor_budget

_BUDGET_SHARE = 4
"""A heavy attempt takes at most one in so many of the file descriptors that are to spare."""


class Surroundings(Protocol):
    """What is known of the network around this machine."""

    @property
    def stun_servers(self) -> Sequence[HostPort]:
        """IPv4 endpoints of STUN servers, the nearest first."""

    @property
    def tcp_behavior(self) -> TransportBehavior:
        """What the NAT does with TCP over IPv4, as far as it was found out."""

    @property
    def host_addresses(self) -> Sequence[str]:
        """This machine's own addresses, without those that no other machine could use."""

    @property
    def nat(self) -> NatSummary:
        """What the NAT does, as far as others are told."""


class Puncher:
    """Makes what an attempt needs. Those under way have a place in ``attempts``, and one of them
    hundreds of sockets: who has the ``heavy_slot``. Paths beside others have one in ``lanes``."""

    def __init__(self, parts: PathParts, surroundings: Surroundings) -> None:
        self.signaling = parts.signaling
        self.clock = parts.clock
        self.attempts = parts.budget.punches
        self.lanes = parts.budget.lanes
        self.targets = parts.targets
        self.heavy_slot = HeavySlot()
        self._parts = parts
        self._surroundings = surroundings

    @property
    def own_id(self) -> PeerId:
        """This peer's id."""
        return self._parts.identity.peer_id

    @property
    def nat(self) -> NatSummary:
        """What this peer's NAT does, as far as it was found out."""
        return self._surroundings.nat

    def make_port(self) -> PunchPort:
        """A new local port to punch from, to be entered."""
        around = self._surroundings
        return PunchPort(around.stun_servers, around.tcp_behavior, around.host_addresses)

    def own_end(self, port: PunchPort) -> PunchEnd:
        """What the other peer is told of ``port``."""
        return port.end(signal_rtt_s=self.signaling.round_trip_s)

    def make_plan(
        self, own: PunchEnd, remote: PunchEnd, port: PunchPort, wish: PathWish
    ) -> PunchPlan:
        """See :func:`make_plan`."""
        return make_plan(
            own,
            remote,
            seen=wish.seen_lately(self.clock.monotonic()),
            local_port=port.number,
            most_sockets=min(MANY_PORTS, descriptor_budget() // _BUDGET_SHARE),
            random=self._parts.random,
        )

    def make_path(self, plan: PunchPlan, wish: PathWish) -> PunchedPath:
        """A path to be, whose ``run`` tries ``plan``."""
        record = wish.record
        return PunchedPath(
            self._parts.context,
            self._parts.zap,
            self._parts.curve,
            plan,
            to=record,
            is_server=self.own_id < record.peer_id,
            owner=self._parts.owner,
            targets=self.targets,
        )

    async def hold(self, path: PunchedPath, wish: PathWish) -> None:
        """Run ``path`` until it ends; whoever waits for ``wish`` then looks again."""
        try:
            await path.run()
        except TransportError as error:  # There was no socket to be had.
            path.give_up(str(error))
        finally:
            wish.notify()
