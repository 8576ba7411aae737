"""Looks for a punched path to one peer: proposes attempts to it by signals, and takes part in those
that it proposes.

::

    proposing                      answering
       │ ── offer (own end) ─────────▶ │   asks STUN for its own end
       │ ◀───────── answer (own end) ──│
    both connect, by the same plan, from the moment when the answer should be read

If both propose at once, the lower id's proposal counts. Whatever fails is noted in the wish, and
tried again at growing intervals, at once when the network or the peer's addresses change.
"""

import asyncio
import logging
import secrets

from daemon.paths.path import PathWish
from daemon.paths.probe_intervals import ProbeIntervals
from daemon.paths.punch_plan import NoPlanError, PunchPlan
from daemon.paths.punch_port import PunchPort
from daemon.paths.punch_prospect import check_tcp
from daemon.paths.punched_path import PunchedPath
from daemon.paths.puncher import Puncher
from daemon.session.handshake import GIVE_UP_S
from daemon.signaling import SignalInbox
from daemon.status import PathKind
from protocol.errors import RemoteProtocolError, TransportError
from protocol.identity import short
from protocol.nat_summary import describe
from protocol.signal_messages import (
    ATTEMPT_BYTES,
    MAX_REASON_LENGTH,
    PunchAnswer,
    PunchDeclined,
    PunchEnd,
    PunchOffer,
    check_punch_end,
)

HEAD_START_S = 0.3
"""Of plain dialling, which needs nobody's help."""
YIELD_S = 1.0
"""The peer with the higher id lets the other propose first."""
ANSWER_S = 4.0
"""Two ways through the rendezvous, and the other side's STUN requests."""
HEAVY_PAUSE_S = 10.0
"""Between attempts that try hundreds of ports: a peer that proposes one after the other is not to
make this one flood whatever address it names."""
LASTING_S = 10.0
"""A path that ended sooner was a failure too."""

_log = logging.getLogger("p2pd.punching")

Reply = PunchAnswer | PunchDeclined
PunchSignal = PunchOffer | Reply


class PunchedSeeker:
    """Keeps a punched path to one peer while there is no direct one. ``run`` it as a task."""

    def __init__(self, puncher: Puncher, wish: PathWish, intervals: ProbeIntervals) -> None:
        self._puncher = puncher
        self._wish = wish
        self._intervals = intervals
        self._peer_id = wish.record.peer_id
        self._clock = puncher.clock
        self._yields = puncher.own_id > self._peer_id
        self._offer: PunchOffer | None = None
        """The peer's, not answered yet."""
        self._reply: Reply | None = None
        self._due_at = 0.0
        self._heavy_not_before = 0.0
        self._known = self._circumstances()

    async def run(self) -> None:
        """Propose and answer; until cancelled."""
        inbox: SignalInbox[PunchSignal] = self._puncher.signaling.inbox(
            self._peer_id, PunchOffer, PunchAnswer, PunchDeclined
        )
        with inbox:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(inbox))
                self._due_at = self._clock.monotonic() + HEAD_START_S
                while True:
                    await self._until_due()
                    async with self._puncher.attempts:
                        await self._attempt(group)

    async def _listen(self, inbox: SignalInbox[PunchSignal]) -> None:
        while True:
            match await inbox.next():
                case PunchOffer() as offer:
                    self._offer = offer
                case reply:
                    self._reply = reply
            self._wish.notify()

    # When

    async def _until_due(self) -> None:
        """Return when there is an offer to answer, or it is time to make one."""
        while self._offer is None:
            if self._has_path():
                await self._until_path_lost()
                continue
            if self._circumstances() != self._known:
                self._known = self._circumstances()
                self._begin_anew()
            due_at = max(self._due_at, self._wish.not_before) + (YIELD_S if self._yields else 0.0)
            left_s = due_at - self._clock.monotonic()
            if left_s <= 0:
                return
            await self._wish.until_or_after(left_s, self._is_changed)

    async def _until_path_lost(self) -> None:
        since = self._clock.monotonic()
        await self._wish.until(lambda: self._offer is not None or not self._has_path())
        if self._clock.monotonic() >= since + LASTING_S:
            self._begin_anew()

    def _is_changed(self) -> bool:
        return self._offer is not None or self._has_path() or self._circumstances() != self._known

    def _has_path(self) -> bool:
        if self._wish.has(PathKind.PUNCHED):
            return True
        return self._wish.has(PathKind.DIRECT) and not self._wish.asks_for(PathKind.PUNCHED)

    def _circumstances(self) -> object:
        record, is_asked_for = self._wish.record.record, self._wish.asks_for(PathKind.PUNCHED)
        return self._wish.network_changes, record.addresses, record.nat, is_asked_for

    def _begin_anew(self) -> None:
        self._intervals.reset()
        self._due_at = self._clock.monotonic()

    # One attempt

    async def _attempt(self, group: asyncio.TaskGroup) -> None:
        offer, self._offer = self._offer, None
        try:
            if offer is None:
                check_tcp(self._puncher.nat, self._wish.record.record.nat)
            async with self._puncher.make_port() as port:
                if offer is not None:
                    await self._answer(offer, port, group)
                elif not self._has_path():
                    await self._propose(port, group)
        except (TransportError, RemoteProtocolError) as error:
            is_news = self._wish.failures.get(PathKind.PUNCHED) != str(error)
            level = logging.INFO if is_news else logging.DEBUG
            _log.log(level, "no punched path to %s: %s", short(self._peer_id), error)
            if not self._has_path():
                self._wish.note_failure(PathKind.PUNCHED, str(error))
        wait_s = self._intervals.failed(is_alone=not self._wish.paths)
        self._due_at = self._clock.monotonic() + wait_s

    async def _propose(self, port: PunchPort, group: asyncio.TaskGroup) -> None:
        own = self._puncher.own_end(port)
        attempt = secrets.token_bytes(ATTEMPT_BYTES)
        await self._puncher.signaling.send(self._wish.record, PunchOffer(attempt=attempt, end=own))
        match await self._reply_to(attempt):
            case PunchAnswer(end=remote):
                check_punch_end(remote)
                await self._punch(self._make_plan(own, remote, port), group)
            case PunchDeclined(reason=reason):
                printable = ascii(reason[:MAX_REASON_LENGTH])[1:-1]
                raise TransportError(f"the peer declines: {printable}")
            case None if self._offer is None:
                raise TransportError(f"the peer did not answer within {ANSWER_S:.0f} s")

    async def _reply_to(self, attempt: bytes) -> Reply | None:
        """The reply to this attempt; None if there is none, or the peer's own proposal counts."""

        def reply() -> Reply | None:
            found = self._reply
            return found if found is not None and found.attempt == attempt else None

        def is_settled() -> bool:
            if not self._yields:
                self._offer = None  # It reads ours by now, and answers that.
            return self._offer is not None or reply() is not None

        await self._wish.until_or_after(ANSWER_S, is_settled)
        return reply()

    async def _answer(self, offer: PunchOffer, port: PunchPort, group: asyncio.TaskGroup) -> None:
        check_punch_end(offer.end)
        if len(offer.attempt) != ATTEMPT_BYTES:
            raise RemoteProtocolError(f"attempt of {len(offer.attempt)} bytes")
        own = self._puncher.own_end(port)
        signaling, record = self._puncher.signaling, self._wish.record
        try:
            plan = self._make_plan(own, offer.end, port)
        except TransportError as error:
            reason = error.reason_there if isinstance(error, NoPlanError) else str(error)
            await signaling.send(
                record, PunchDeclined(attempt=offer.attempt, reason=reason[:MAX_REASON_LENGTH])
            )
            raise
        await signaling.send(record, PunchAnswer(attempt=offer.attempt, end=own))
        # That took this peer's round trip to the rendezvous; the answer takes half of it, and half
        # of the other's.
        left_ms = (offer.end.signal_rtt_ms - own.signal_rtt_ms) / 2
        await asyncio.sleep(max(0.0, left_ms / 1000))
        await self._punch(plan, group)

    def _make_plan(self, own: PunchEnd, remote: PunchEnd, port: PunchPort) -> PunchPlan:
        """Raises :class:`TransportError` when there is nothing to try, or not now."""
        plan = self._puncher.make_plan(own, remote, port)
        if plan.is_heavy:
            now = self._clock.monotonic()
            if now < self._heavy_not_before:
                raise TransportError("hundreds of ports were tried a moment ago")
            self._heavy_not_before = now + HEAVY_PAUSE_S
        return plan

    async def _punch(self, plan: PunchPlan, group: asyncio.TaskGroup) -> None:
        """Try ``plan`` until the session uses the path, or the peer begins anew.

        Raises :class:`TransportError` when no path comes of it.
        """
        path = self._puncher.make_path(plan, self._wish)
        group.create_task(self._hold(path))
        await self._wish.until_or_after(
            plan.lasts_s + GIVE_UP_S,
            lambda: path.has_ended or path in self._wish.paths or self._offer is not None,
        )
        if path in self._wish.paths:
            return
        path.give_up("the peer began anew" if self._offer else "the peer did not say hello")
        if self._offer is None and not self._has_path():
            raise TransportError(
                f"{path.failure} (own NAT: {describe(self._puncher.nat)}; the peer's:"
                f" {describe(self._wish.record.record.nat)})"
            )

    async def _hold(self, path: PunchedPath) -> None:
        try:
            await path.run()
        finally:
            self._wish.notify()
