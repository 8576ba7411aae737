"""Makes further punched paths to one peer, beside the one that there is, several with each attempt.

::

    proposing                       answering
       │ ── offer (own ends) ─────────▶ │   asks STUN for as many of its own
       │ ◀───────── answer (own ends) ──│
    both connect, the first end to the first, and so on

Each connection is punched as the first one was (daemon/net/paths/punched/seeker.py), but never with
many ports. As many are offered as are wanted (daemon/net/peers/lane_trial.py), eight at most, and
after an attempt of which nothing came only one, later and later.

Invariant: whatever the peer offers, this side makes no more than it wants itself, and holds a place
(daemon/net/paths/budget.py) for each of them.
"""

import asyncio
import logging
import secrets
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack

from daemon.net.path_kind import PathKind
from daemon.net.paths.offering import Offering
from daemon.net.paths.path import PathWish, host_of
from daemon.net.paths.punched.path import PunchedPath
from daemon.net.paths.punched.plan import PunchPlan
from daemon.net.paths.punched.port import PunchPort
from daemon.net.paths.punched.prospect import takes_many_ports
from daemon.net.paths.punched.puncher import Puncher
from daemon.net.paths.when import YIELD_S, yields
from daemon.net.session.handshake import GIVE_UP_S
from daemon.net.signaling import SignalInbox
from protocol.errors import RemoteProtocolError, TransportError
from protocol.identity import short
from protocol.peers.signal_messages import (
    ATTEMPT_BYTES,
    MAX_LANES_AT_ONCE,
    LanesAnswer,
    LanesOffer,
    NextPort,
    PunchEnd,
    check_punch_end,
)

WAIT_S, MOST_FAILURES = 0.1, 9
"""Between attempts; doubled with each that failed."""

_log = logging.getLogger("p2pd.punching")


class PunchedLanes:
    """Keeps as many punched paths as are wanted, once there is one. ``run`` it as a task.

    Example (daemon/net/paths/punched/seeker.py)::

        group.create_task(PunchedLanes(self._puncher, self._wish).run())
    """

    def __init__(self, puncher: Puncher, wish: PathWish) -> None:
        self._puncher = puncher
        self._wish = wish
        self._clock = puncher.clock
        self._peer_id = wish.record.peer_id
        self._yields = yields(puncher.own_id, self._peer_id)
        self._offering: Offering[LanesOffer, LanesAnswer] = Offering(
            wish, LanesOffer, yields=self._yields
        )
        self._due_at = 0.0
        self._failures = 0

    async def run(self) -> None:
        """Propose and answer; until cancelled."""
        inbox: SignalInbox[LanesOffer | LanesAnswer] = self._puncher.signaling.inbox(
            self._peer_id, LanesOffer, LanesAnswer
        )
        with inbox:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._offering.listen(inbox))
                while True:
                    await self._until_due()
                    async with self._puncher.attempts:
                        await self._attempt(group)

    # When

    async def _until_due(self) -> None:
        """Return when there is an offer to answer, or it is time to make one."""
        while self._offering.offer is None:
            if not self._lacking():
                await self._wish.until(lambda: self._offering.offer is not None or self._lacks())
                if self._yields:
                    self._wait(YIELD_S)
                continue
            left_s = max(self._due_at, self._wish.not_before) - self._clock.monotonic()
            if left_s <= 0:
                return
            await self._wish.until_or_after(
                left_s, lambda: self._offering.offer is not None or not self._lacks()
            )

    def _wait(self, seconds: float) -> None:
        self._due_at = max(self._due_at, self._clock.monotonic() + seconds)

    def _lacks(self) -> bool:
        return self._lacking() > 0

    def _lacking(self) -> int:
        """How many more are of use, and may be made."""
        wish, kind = self._wish, PathKind.PUNCHED
        own, peer = self._puncher.nat, wish.record.record.nat
        if not wish.lacks_lane(kind) or takes_many_ports(own, peer):
            return 0
        if wish.has(PathKind.DIRECT) and not wish.asks_for(kind):
            return 0
        count = wish.count(kind)
        return min(wish.most(kind) - count, self._puncher.lanes.room(beside=count))

    # One attempt

    async def _attempt(self, group: asyncio.TaskGroup) -> None:
        offer, before = self._offering.take_offer(), self._wish.paths
        try:
            if offer is not None:
                await self._answer(offer, group)
            else:
                await self._propose(group)
        except (TransportError, RemoteProtocolError) as error:
            _log.debug("no further path to %s: %s", short(self._peer_id), error)
        if self._wish.paths - before:
            self._failures = 0
        else:
            self._failures = min(self._failures + 1, MOST_FAILURES)
        # Who has answered lets the other side go on.
        self._wait(WAIT_S * 2.0**self._failures + (YIELD_S if offer is not None else 0.0))

    async def _propose(self, group: asyncio.TaskGroup) -> None:
        most = 1 if self._failures else MAX_LANES_AT_ONCE
        self._check_targets(self._wish.last_seen())
        async with AsyncExitStack() as stack:
            ports = await self._ports(stack, most)
            ends = self._own_ends(ports)
            if not ends:
                return  # While it waited for its turn, others took the places.
            offer = LanesOffer(secrets.token_bytes(ATTEMPT_BYTES), ends)
            await self._puncher.signaling.send(self._wish.record, offer)
            answer = await self._offering.reply_to(offer.attempt)
            if answer is not None:
                await self._punch(ports, ends, answer.ends, group)
                return
        counting = self._offering.take_offer()
        if counting is not None:
            await self._answer(counting, group)

    async def _answer(self, offer: LanesOffer, group: asyncio.TaskGroup) -> None:
        if len(offer.attempt) != ATTEMPT_BYTES:
            raise RemoteProtocolError(f"attempt of {len(offer.attempt)} bytes")
        signaling, record = self._puncher.signaling, self._wish.record
        async with AsyncExitStack() as stack:
            ports = await self._ports(stack, len(offer.ends))
            ends = self._own_ends(ports)
            await signaling.send(record, LanesAnswer(offer.attempt, ends))
            if not ends:
                raise TransportError("no more are of use")
            # Half of this peer's round trip to the rendezvous is over when it has the answer, which
            # takes half of the other's.
            left_ms = (offer.ends[0].signal_rtt_ms - ends[0].signal_rtt_ms) / 2
            await asyncio.sleep(max(0.0, left_ms / 1000))
            await self._punch(ports, ends, offer.ends, group)

    async def _ports(self, stack: AsyncExitStack, most: int) -> Sequence[PunchPort]:
        """So many new local ports at most, with a place for each, as long as ``stack`` is
        entered."""
        ports = [self._puncher.make_port() for _ in range(min(most, self._lacking()))]
        for _ in ports:
            stack.enter_context(self._puncher.lanes.taken())
        entered = await asyncio.gather(
            *map(stack.enter_async_context, ports), return_exceptions=True
        )
        for error in entered:
            if isinstance(error, BaseException):
                raise error
        return ports

    def _own_ends(self, ports: Sequence[PunchPort]) -> tuple[PunchEnd, ...]:
        ends = tuple(map(self._puncher.own_end, ports))
        # Where the NAT counts its ports on, nobody can tell which connection gets which.
        are_fixed = all(end.next_port is NextPort.FIXED for end in ends)
        return ends if are_fixed else ends[-1:]

    async def _punch(
        self,
        ports: Sequence[PunchPort],
        own: Sequence[PunchEnd],
        remote: Sequence[PunchEnd],
        group: asyncio.TaskGroup,
    ) -> None:
        """Try each with each, until the session uses the paths or nothing is to be hoped for."""
        plans = []
        for port, own_end, remote_end in zip(ports[-len(own) :], own, remote, strict=False):
            check_punch_end(remote_end)
            plan = self._puncher.make_plan(own_end, remote_end, port, self._wish)
            self._check(plan)
            plans.append(plan)
        if not plans:
            raise TransportError("the peer has no use for more")
        self._puncher.targets.begin(frozenset().union(*(plan.hosts for plan in plans)))
        paths = [self._puncher.make_path(plan, self._wish) for plan in plans]
        for path in paths:
            group.create_task(self._hold(path))
        await self._wish.until_or_after(
            max(plan.lasts_s for plan in plans) + GIVE_UP_S,
            lambda: all(path.has_ended or path in self._wish.paths for path in paths),
        )
        for path in paths:
            if path not in self._wish.paths:
                path.give_up("the peer did not say hello")

    def _check(self, plan: PunchPlan) -> None:
        """Raises :class:`TransportError` when it is not to be tried now."""
        if plan.is_heavy:
            raise TransportError("it takes many ports")
        direct = [path for path in self._wish.paths if path.kind is PathKind.DIRECT]
        if direct and not plan.hosts <= {host_of(path.remote_address) for path in direct}:
            raise TransportError("there is a direct path")
        self._check_targets(plan.hosts)

    def _check_targets(self, hosts: Collection[str]) -> None:
        if self._puncher.targets.wait_s(hosts):
            raise TransportError("its address did not answer a moment ago")

    async def _hold(self, path: PunchedPath) -> None:
        with self._puncher.lanes.taken():
            await self._puncher.hold(path, self._wish)
