"""Looks for a punched path to one peer: proposes attempts to it by signals, and takes part in those
that it proposes.

::

    proposing                      answering
       │ ── offer (own end) ─────────▶ │   asks STUN for its own end
       │ ◀───────── answer (own end) ──│
    both connect, by the same plan, from the moment when the answer should be read

If both propose at once, daemon/net/paths/offering.py says whose offer counts. A failure is noted in
the wish. The attempt is repeated at growing intervals, and at once when the network or the peer's
addresses change.

A heavy attempt, one with many ports, needs the heavy slot of both peers. The proposer takes its own
before it proposes, and keeps it until the reply. A peer that is asked and has none to spare
declines at once, waits in line, and proposes in its turn. So no peer keeps its slot while it waits
for another's, and a declined attempt is no failure on either side.

Where more paths than one are wanted, daemon/net/paths/punched/lanes.py makes them beside this one.
"""

import asyncio
import logging
import secrets
from collections.abc import Collection

from daemon.net.path_kind import PathKind
from daemon.net.paths.offering import Offering
from daemon.net.paths.path import PathWish, host_of
from daemon.net.paths.probe_intervals import ProbeIntervals
from daemon.net.paths.punched.lanes import PunchedLanes
from daemon.net.paths.punched.plan import NoPlanError, PunchPlan
from daemon.net.paths.punched.port import PunchPort
from daemon.net.paths.punched.prospect import can_be_dialled, check_tcp, takes_many_ports
from daemon.net.paths.punched.puncher import Puncher
from daemon.net.paths.when import LASTING_S, YIELD_S, yields
from daemon.net.session.handshake import GIVE_UP_S
from daemon.net.signaling import SignalInbox
from protocol.errors import RemoteProtocolError, TransportError
from protocol.identity import short
from protocol.peers.signal_messages import (
    ATTEMPT_BYTES,
    MAX_REASON_LENGTH,
    NextPort,
    PunchAnswer,
    PunchDeclined,
    PunchEnd,
    PunchOffer,
    check_punch_end,
)
from protocol.statements.nat_summary import describe

HEAD_START_S = 0.3
"""The head start of plain dialling, which needs nobody's help."""
DIAL_HEAD_START_S = 3.0
"""The head start of plain dialling before a heavy attempt, where one side can be dialled as far as
is known. The dialler with the higher id begins a second late, and tries several addresses."""
HEAVY_PAUSE_S = 10.0
"""Between attempts that try hundreds of ports: a peer that proposes one after the other is not to
make this one flood whatever address it names."""

_log = logging.getLogger("p2pd.punching")

Reply = PunchAnswer | PunchDeclined
PunchSignal = PunchOffer | Reply


class PutOffError(TransportError):
    """Nothing failed; it is only not the moment for a heavy attempt."""

    def __init__(self, reason: str, until: float) -> None:
        """``until``: monotonic seconds, when this side proposes again."""
        super().__init__(reason)
        self.until = until


class PunchedSeeker:
    """Keeps a punched path to one peer while there is no direct one. ``run`` it as a task."""

    def __init__(self, puncher: Puncher, wish: PathWish, intervals: ProbeIntervals) -> None:
        self._puncher = puncher
        self._wish = wish
        self._intervals = intervals
        self._peer_id = wish.record.peer_id
        self._clock = puncher.clock
        self._yields = yields(puncher.own_id, self._peer_id)
        self._offering: Offering[PunchOffer, Reply] = Offering(
            wish, PunchOffer, yields=self._yields
        )
        self._due_at = 0.0
        self._owes_offer = False
        """This side declined because it was busy: the peer waits for an offer."""
        self._slot = puncher.heavy_slot
        self._is_heavy = False
        """Whether the last plan was."""
        self._heavy_not_before = 0.0
        self._dialled_until = 0.0
        """Plain dialling has its head start until then."""
        self._known = self._circumstances()

    async def run(self) -> None:
        """Propose and answer; until cancelled."""
        inbox: SignalInbox[PunchSignal] = self._puncher.signaling.inbox(
            self._peer_id, PunchOffer, PunchAnswer, PunchDeclined
        )
        with inbox:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._offering.listen(inbox))
                group.create_task(PunchedLanes(self._puncher, self._wish).run())
                self._begin_anew()
                self._due_at += HEAD_START_S
                while True:
                    await self._until_due()
                    async with self._puncher.attempts:
                        try:
                            await self._attempt(group)
                        finally:
                            self._slot.release(self)

    # When

    async def _until_due(self) -> None:
        """Return when there is an offer to answer, or it is time to make one."""
        while self._offering.offer is None:
            if self._has_path():
                await self._until_lack()
                continue
            if self._circumstances() != self._known:
                self._known = self._circumstances()
                self._begin_anew()
            left_s = self._due() - self._clock.monotonic()
            if left_s > 0:
                await self._wait_for_change(left_s)
            elif self._expects_heavy() and not self._slot.is_free:
                await self._until_slot_free()
            else:
                return

    def _due(self) -> float:
        due_at = max(self._due_at, self._wish.not_before)
        if self._expects_heavy():
            due_at = max(due_at, self._heavy_not_before, self._better_path_due())
        return due_at + (YIELD_S if self._yields and not self._owes_offer else 0.0)

    async def _until_slot_free(self) -> None:
        """Wait in line for it, or until there is another reason to look again. Each that has it
        gives it back within seconds, whatever its peer does."""
        with self._slot.line(self, self._wish.notify):
            await self._wish.until(lambda: self._slot.is_free or self._is_changed())

    def _expects_heavy(self) -> bool:
        own, peer = self._puncher.nat, self._wish.record.record.nat
        return self._is_heavy or takes_many_ports(own, peer)

    def _better_path_due(self) -> float:
        """Monotonic seconds: until then plain dialling is likely to make one needless."""
        own, peer = self._puncher.nat, self._wish.record.record.nat
        needless = can_be_dialled(own, peer) and not self._wish.asks_for(PathKind.PUNCHED)
        return self._dialled_until if needless else 0.0

    async def _until_lack(self) -> None:
        since = self._clock.monotonic()
        await self._wish.until(lambda: self._offering.offer is not None or not self._has_path())
        if self._clock.monotonic() >= since + LASTING_S:
            self._begin_anew()

    async def _wait_for_change(self, longest_s: float) -> None:
        await self._wish.until_or_after(longest_s, self._is_changed)

    def _is_changed(self) -> bool:
        return (
            self._offering.offer is not None
            or self._has_path()
            or self._circumstances() != self._known
        )

    def _has_path(self) -> bool:
        return self._wish.has(PathKind.PUNCHED) or self._has_better()

    def _has_better(self) -> bool:
        return self._wish.has(PathKind.DIRECT) and not self._wish.asks_for(PathKind.PUNCHED)

    def _circumstances(self) -> object:
        record, is_asked_for = self._wish.record.record, self._wish.asks_for(PathKind.PUNCHED)
        return self._wish.network_changes, record.addresses, record.nat, is_asked_for

    def _begin_anew(self) -> None:
        self._intervals.reset()
        self._due_at = self._clock.monotonic()
        self._dialled_until = self._due_at + DIAL_HEAD_START_S

    # One attempt

    async def _attempt(self, group: asyncio.TaskGroup) -> None:
        offer = self._offering.take_offer()
        try:
            if offer is None:
                check_tcp(self._puncher.nat, self._wish.record.record.nat)
                if self._expects_heavy() and not self._slot.take(self):
                    return  # Another one was faster; this one stays due.
            self._owes_offer = False
            async with self._puncher.make_port() as port:
                if offer is not None:
                    await self._answer(offer, port, group)
                elif not self._has_path():
                    await self._propose(port, group)
        except PutOffError as error:
            _log.debug("no attempt with %s now: %s", short(self._peer_id), error)
            self._due_at = error.until
            return
        except (TransportError, RemoteProtocolError) as error:
            is_news = self._wish.is_news(PathKind.PUNCHED, error)
            level = logging.INFO if is_news else logging.DEBUG
            _log.log(level, "no punched path to %s: %s", short(self._peer_id), error)
            if not self._has_path():
                self._wish.note_failure(PathKind.PUNCHED, str(error))
        wait_s = self._intervals.failed(is_alone=not self._wish.paths)
        self._due_at = self._clock.monotonic() + wait_s

    async def _propose(self, port: PunchPort, group: asyncio.TaskGroup) -> None:
        self._check_target(self._wish.last_seen())
        own = self._puncher.own_end(port)
        if own.next_port is NextPort.RANDOM:
            self._slot.take(self)
        offer = PunchOffer(
            attempt=secrets.token_bytes(ATTEMPT_BYTES),
            end=own,
            has_heavy_slot=self._slot.is_held_by(self),
        )
        await self._puncher.signaling.send(self._wish.record, offer)
        match await self._offering.reply_to(offer.attempt):
            case PunchAnswer(end=remote):
                check_punch_end(remote)
                plan = self._make_plan(own, remote, port)
                self._check_moment(plan)
                await self._punch(plan, group)
            case PunchDeclined(reason=reason, offers_later=offers_later):
                printable = ascii(reason[:MAX_REASON_LENGTH])[1:-1]
                if offers_later:
                    until = self._clock.monotonic() + self._intervals.put_off()
                    raise PutOffError(f"the peer is not ready: {printable}", until)
                raise TransportError(f"the peer declines: {printable}")
            case None:
                counting = self._offering.take_offer()
                if counting is not None:
                    await self._answer(counting, port, group)

    async def _answer(self, offer: PunchOffer, port: PunchPort, group: asyncio.TaskGroup) -> None:
        check_punch_end(offer.end)
        if len(offer.attempt) != ATTEMPT_BYTES:
            raise RemoteProtocolError(f"attempt of {len(offer.attempt)} bytes")
        own = self._puncher.own_end(port)
        signaling, record = self._puncher.signaling, self._wish.record
        try:
            plan = self._make_plan(own, offer.end, port)
            if plan.is_heavy and not offer.has_heavy_slot:
                raise PutOffError("it takes many ports", self._clock.monotonic())
            self._check_target(plan.hosts)
            self._check_moment(plan)
        except TransportError as error:
            reason = error.reason_there if isinstance(error, NoPlanError) else str(error)
            self._owes_offer = isinstance(error, PutOffError)
            declined = PunchDeclined(
                attempt=offer.attempt,
                reason=reason[:MAX_REASON_LENGTH],
                offers_later=self._owes_offer,
            )
            await signaling.send(record, declined)
            raise
        await signaling.send(record, PunchAnswer(attempt=offer.attempt, end=own))
        # That took this peer's round trip to the rendezvous; the answer takes half of it, and half
        # of the other's.
        left_ms = (offer.end.signal_rtt_ms - own.signal_rtt_ms) / 2
        await asyncio.sleep(max(0.0, left_ms / 1000))
        await self._punch(plan, group)

    def _make_plan(self, own: PunchEnd, remote: PunchEnd, port: PunchPort) -> PunchPlan:
        """Raises :class:`NoPlanError` when there is nothing to try."""
        plan = self._puncher.make_plan(own, remote, port, self._wish)
        self._is_heavy = plan.is_heavy
        return plan

    def _check_moment(self, plan: PunchPlan) -> None:
        """Take the slot for ``plan``, if it is heavy. Raises :class:`PutOffError` when it is not to
        be tried now."""
        now = self._clock.monotonic()
        if self._wish.has(PathKind.DIRECT) and not self._leads_along_direct(plan):
            raise PutOffError("there is a direct path", now)
        if not plan.is_heavy:
            self._slot.release(self)
            self._puncher.targets.begin(plan.hosts)
            return
        if self._has_better():
            raise PutOffError("there is a direct path", now)
        if now < self._better_path_due():
            raise PutOffError("there may be a direct path soon", self._better_path_due())
        if now < self._heavy_not_before:
            raise PutOffError("many ports were tried a moment ago", self._heavy_not_before)
        if not self._slot.take(self):
            raise PutOffError("another attempt with many ports is under way", now)
        self._heavy_not_before = now + HEAVY_PAUSE_S
        self._puncher.targets.begin(plan.hosts)

    def _check_target(self, hosts: Collection[str]) -> None:
        """Raises :class:`PutOffError` while one of ``hosts`` is not to be tried, since it did not
        answer. To be called before the other side is told to begin: if only one of the two did, its
        attempt would be in vain."""
        wait_s = self._puncher.targets.wait_s(hosts)
        if wait_s:
            until = self._clock.monotonic() + wait_s
            raise PutOffError("its address did not answer a moment ago", until)

    def _leads_along_direct(self, plan: PunchPlan) -> bool:
        """Whether a plan leads only to where a direct path proves the peer to be. Then it may be
        tried beside that, so that the two can be compared."""
        direct = [path for path in self._wish.paths if path.kind is PathKind.DIRECT]
        return plan.hosts <= {host_of(path.remote_address) for path in direct}

    async def _punch(self, plan: PunchPlan, group: asyncio.TaskGroup) -> None:
        """Try ``plan`` until the session uses the path, or the peer begins anew.

        Raises :class:`TransportError` when no path comes of it.
        """
        path = self._puncher.make_path(plan, self._wish)
        group.create_task(self._puncher.hold(path, self._wish))
        await self._wish.until_or_after(
            plan.lasts_s + GIVE_UP_S,
            lambda: (
                path.has_ended
                or path in self._wish.paths
                or self._offering.offer is not None
                or (plan.is_heavy and self._has_better())
            ),
        )
        if path in self._wish.paths:
            return
        path.give_up(
            "the peer began anew" if self._offering.offer else "the peer did not say hello"
        )
        if self._offering.offer is None and not self._has_path():
            raise TransportError(
                f"{path.failure} (own NAT: {describe(self._puncher.nat)}; the peer's:"
                f" {describe(self._wish.record.record.nat)})"
            )
