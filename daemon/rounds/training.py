"""Keeps this peer in step with its swarm: gathers peers, runs rounds, catches up, rests when told
or when rounds fail here.

One activity runs at a time, and beside it a watch for peers that are ahead or on another line. When
the watch finds a state that is to be taken, the activity ends and the state is taken.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from daemon.net.refusals import Refusals
from daemon.rounds.agreed_round import AgreedRound, RoundParts
from daemon.rounds.allreduce_round import AllReduceRound
from daemon.rounds.blobs.service import BlobService
from daemon.rounds.failures import RoundFailures
from daemon.rounds.gathering import Gathering
from daemon.rounds.gossip_round import GossipRound
from daemon.rounds.kind import choose_exchange
from daemon.rounds.lineage.catch_up import BetterState, CatchUp
from daemon.rounds.lineage.lineage import Lineage, Position
from daemon.rounds.lineage.standings import Standings
from daemon.rounds.lineage.succession import Rivals
from daemon.rounds.mesh_round import MeshRound
from daemon.rounds.patience import Patience
from daemon.rounds.phase import Phase
from daemon.rounds.round_history import RoundHistory
from daemon.rounds.speaker import Speaker
from daemon.rounds.updates import Exchange
from daemon.worker.trainer import Trainer
from ml.worker.messages import StateReady, TaskOpened
from protocol.agreement_messages import AgreementMessage, Certificate
from protocol.codec import decode
from protocol.envelope import Domain
from protocol.errors import ConfigError, RemoteProtocolError, TransportError, WorkerError
from protocol.identity import PeerId
from protocol.peer_messages import (
    Agreement,
    CertificateReply,
    CertificateRequest,
    PeerMessage,
    Standing,
    StateOffer,
    StateRequest,
)
from protocol.swarm import UNLIMITED, RoundSettings
from transport.clock import Clock

BEAT_S = 1.0
MAX_PENDING = 4096
"""Messages of rounds to come; the oldest go first."""
TASK_TRIES = 5

_log = logging.getLogger("p2pd.training")


class Training:
    """One peer's part in the training of its swarm."""

    def __init__(
        self,
        *,
        me: PeerId,
        lineage: Lineage,
        settings: RoundSettings,
        exchange: Exchange,
        blobs: BlobService,
        worker: Trainer,
        standings: Standings,
        speaker: Speaker,
        catch_up: CatchUp,
        keep: Callable[[Certificate], None],
        initial_root: bytes,
        model_bytes: int,
        own_rounds: int,
        refusals: Refusals,
        clock: Clock,
    ) -> None:
        """``initial_root``: round 0's, by the swarm statement. ``model_bytes``: of an encoded
        update. ``own_rounds``: leave once that round is complete; 0: stay."""
        self.lineage = lineage
        self._phase = Phase.STARTING
        self.history = RoundHistory(clock)
        self.last_state: StateReady | None = None
        self.failures = RoundFailures()
        self._me = me
        self._settings = settings
        self._exchange = exchange
        self._blobs = blobs
        self._worker = worker
        self._standings = standings
        self._speaker = speaker
        self._catch_up = catch_up
        self._keep = keep
        self._initial_root = initial_root
        self._model_bytes = model_bytes
        self._own_rounds = own_rounds
        self._refusals = refusals
        self._clock = clock
        self._patience = Patience()
        self._started = False
        self._paused = False
        self._said: Standing | None = None
        self._changed = asyncio.Event()
        self._interrupted = asyncio.Event()
        self._round: AgreedRound | GossipRound | None = None
        self._gathering: Gathering | None = None
        self._pending: deque[tuple[PeerId, bytes]] = deque(maxlen=MAX_PENDING)

    # From outside

    def pause(self) -> None:
        """Train no more until :meth:`resume`; stay in the swarm."""
        self._paused = True
        self._interrupted.set()
        self.wake()

    def resume(self) -> None:
        """Train again."""
        self._paused = False
        self.wake()

    def wake(self) -> None:
        """Something changed: a session, a standing, the worker."""
        self._changed.set()
        if self._round is not None:
            self._round.wake()

    def standing(self) -> Standing:
        """What this peer says about itself."""
        position = self.lineage.position
        return Standing(
            round=position.round,
            base=position.base,
            contributors=self.lineage.contributors,
            started=self._started,
            ready=self._can_train and not self.is_complete and not self._rest_s,
        )

    @property
    def phase(self) -> Phase:
        """What it does now."""
        return self._phase

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._phase = phase
        self.history.enter(phase, self.lineage.position.round + 1)

    @property
    def awaited(self) -> frozenset[PeerId]:
        """Whose updates the round at hand waits for, once this peer's own is there."""
        if self._round is None or self._phase not in (Phase.EXCHANGING, Phase.WAITING):
            return frozenset()
        return self._round.awaited

    @property
    def closes_in_s(self) -> float | None:
        """After so long the round at hand waits for nobody any more; None: not known."""
        return None if self._round is None else self._round.closes_in_s

    @property
    def shortage(self) -> str:
        """For people: which peers or updates the round at hand lacks to end; empty: none."""
        return "" if self._round is None else self._round.shortage

    @property
    def waits_for(self) -> str:
        """For people: what an unfinished gathering, or the round at hand, lacks."""
        return self.shortage if self._gathering is None else self._gathering.needed()

    @property
    def lacks_initial_state(self) -> bool:
        """Whether this machine's round 0 differs from the founder's, which is still to be had."""
        position = self.lineage.position
        return position.round == 0 and position.base != self._initial_root

    @property
    def _can_train(self) -> bool:
        return self._worker.is_ready and not self._paused and not self.lacks_initial_state

    @property
    def _rest_s(self) -> float:
        """For how long no round is tried, since the last ones failed."""
        return self.failures.left_s(self._clock.monotonic())

    @property
    def is_complete(self) -> bool:
        """Whether the swarm's last round is done."""
        rounds = self._settings.rounds
        return rounds != UNLIMITED and self.lineage.position.round >= rounds

    def greet(self, peer: PeerId) -> None:
        """A session with ``peer`` is new: say where this peer stands."""
        self._speaker.send(peer, self.standing())
        self.wake()

    def forget(self, peer: PeerId) -> None:
        """``peer``'s session ended."""
        self._standings.remove(peer)
        if self._round is not None:
            self._round.forget_peer(peer)
        self.wake()

    def receive(self, peer: PeerId, message: PeerMessage) -> None:
        """A message of ``peer``'s that concerns the training."""
        match message:
            case Standing(round_number, base):
                if round_number == 0 and base != self._initial_root:
                    return  # it made other bits of round 0 and has to take the founder's
                if self._standings.update(peer, message):
                    self.wake()
            case Agreement(envelope):
                self._receive_agreement(peer, envelope)
            case CertificateRequest(round_number, base):
                self._answer_certificate(peer, round_number, base)
            case CertificateReply(certificate):
                self._receive_certificate(peer, certificate)
            case StateRequest():
                self._catch_up.answer(peer, message)
            case StateOffer():
                self._catch_up.receive_offer(peer, message)
                self._changed.set()
            case _:
                self._refusals.add(peer, "message", f"unexpected {type(message).__name__}")

    def worker_restarted(self, opened: TaskOpened) -> None:
        """The worker is back, with the state of ``opened``."""
        self.fall_back(Position(opened.round, opened.state.root))

    def fall_back(self, position: Position) -> None:
        """The worker holds the state of ``position``, whatever it held before."""
        if position != self.lineage.position:
            _log.warning(
                "the worker came back with round %d, the swarm's state was of round %d",
                position.round,
                self.lineage.position.round,
            )
            self.lineage.reset(position)
            self._started = False
            self._interrupted.set()
        self.wake()

    # The loop

    async def run(self) -> None:
        """Take part until the own number of rounds is reached, or cancelled."""
        async with asyncio.TaskGroup() as tasks:
            beat = tasks.create_task(self._beat())
            watch = self._watch()
            try:
                while not self._own_rounds or self.lineage.position.round < self._own_rounds:
                    await self._step(watch)
                    if watch.done():
                        await self._take(watch.result())
                        watch = self._watch()
            finally:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
            beat.cancel()

    def _watch(self) -> "asyncio.Task[BetterState]":
        # It lives through many activities: its own waits may be longer than a round.
        return asyncio.ensure_future(self._catch_up.find(self._is_about_to_follow))

    async def _step(self, watch: "asyncio.Task[BetterState]") -> None:
        """One activity, until it ends, is interrupted, or ``watch`` has found a state."""
        self._interrupted.clear()
        activity = asyncio.ensure_future(self._activity())
        interruption = asyncio.ensure_future(self._interrupted.wait())
        both: set[asyncio.Future[Any]] = {activity, interruption}
        try:
            await asyncio.wait({*both, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self._round = None
            self._gathering = None
        if not activity.cancelled():
            self._note_failure(activity)

    async def _take(self, better: BetterState) -> None:
        """Give the own state up for ``better``, unless this peer got there meanwhile."""
        if self.lineage.knows(better.offer.round, better.offer.root):
            return
        self.phase = Phase.FETCHING
        self._started = False  # until those who have started say with whom
        state = await self._catch_up.take(better)
        if state is not None:
            self.last_state = state
        self._announce_standing()

    def _note_failure(self, activity: "asyncio.Future[None]") -> None:
        """A round that could not end is given up, and tried again after a pause.

        So is one in which the task's own code failed, since that can be a device out of memory or
        a disk; but when it has failed :data:`TASK_TRIES` times in a row it is the task's mistake,
        and goes on up as :class:`ConfigError`, like anything unexpected.
        """
        error = activity.exception()
        if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        may_pass = isinstance(error, ConfigError) and self.failures.count < TASK_TRIES - 1
        if may_pass or isinstance(error, TransportError | WorkerError):
            pause_s = self.failures.add(str(error), self._clock.monotonic())
            _log.warning("round given up: %s; again in %.0f s", error, pause_s)
            self._announce_standing()
        elif error is not None:
            raise error

    async def _activity(self) -> None:
        if self._paused or self.is_complete:
            self.phase = Phase.PAUSED if self._paused else Phase.COMPLETE
            self._announce_standing()
            while self._paused or self.is_complete:
                await self._next_change()
        elif not self._can_train:
            self.phase = Phase.FETCHING if self._worker.is_ready else Phase.STARTING
            while not self._can_train:
                await self._next_change()
        elif self._rest_s:
            self.phase = Phase.RETRYING
            while rest_s := self._rest_s:
                await self._next_change(rest_s)
            self._announce_standing()
        elif not self._started and not self._goes_on_alone:
            await self._gather()
        else:
            await self._run_round()

    @property
    def _goes_on_alone(self) -> bool:
        """In gossip nothing has to be agreed on once the swarm is under way."""
        return self._settings.exchange == "gossip" and self.lineage.position.round > 0

    async def _run_round(self) -> None:
        round_ = self._round = self._new_round()
        pending = list(self._pending)
        self._pending.clear()
        for peer, envelope in pending:
            self._receive_agreement(peer, envelope)
        self.last_state = await round_.run()
        self.history.end_round(self.last_state, round_.averaged)
        self.failures.clear()
        self._announce_standing()

    def _new_round(self) -> AgreedRound | GossipRound:
        parts = RoundParts(
            me=self._me,
            lineage=self.lineage,
            settings=self._settings,
            exchange=self._exchange,
            worker=self._worker,
            standings=self._standings,
            patience=self._patience,
            speaker=self._speaker,
            serve=self._blobs.add_local,
            serve_state=self._blobs.store.add_state,
            keep=self._keep,
            set_phase=self._set_phase,
            clock=self._clock,
        )
        match choose_exchange(self._settings, len(self.lineage.roster), self._model_bytes):
            case "gossip":
                return GossipRound(parts, self._initial_root)
            case "allreduce":
                return AllReduceRound(parts)
            case _:
                return MeshRound(parts)

    async def _gather(self) -> None:
        """Wait for peers on the same state, and start with them, or with those who have started."""
        self.phase = Phase.WAITING
        position = self.lineage.position
        gathering = self._gathering = Gathering(
            self._me,
            round_number=position.round,
            base=position.base,
            last_roster=self.lineage.roster,
            min_peers=self._settings.min_peers,
            open_agreement=self._speaker.open_agreement,
            now=self._clock.monotonic(),
        )
        certificate = await self._start_certificate(gathering)
        self.lineage.start(certificate)
        self._keep(certificate)
        self._started = True
        self._gathering = None
        self._announce_standing()

    async def _start_certificate(self, gathering: Gathering) -> Certificate:
        """How the round at hand was started: by those who have started, or together from here."""
        position = self.lineage.position
        while gathering.certificate is None:
            now = self._clock.monotonic()
            same = self._standings.ready_at(position.round, position.base)
            certificate = self._catch_up.certificate_of_started(same)
            if certificate is not None:
                return certificate
            gathering.set_candidates(same | {self._me}, now)
            for message in gathering.messages_to_send():
                envelope = self._speaker.seal(Domain.AGREEMENT, message)
                self._speaker.broadcast(Agreement(envelope=envelope))
                gathering.receive(self._speaker.open_agreement(envelope), now)
            timer = gathering.get_timer()
            await self._next_change(BEAT_S if timer is None else max(0.0, timer - now))
        return gathering.certificate

    def _is_about_to_follow(self, rivals: Rivals) -> bool:
        """Whether the round at hand is decided and leads to where the others are."""
        return (
            self._round is not None
            and self._round.decided
            and rivals.target.round <= self._round.number
        )

    # Answering others

    def _receive_agreement(self, peer: PeerId, envelope: bytes) -> None:
        try:
            message = self._speaker.open_agreement(envelope)
            content = decode(message.payload, AgreementMessage)
            position = self.lineage.position
            here = (content.round, content.base)
            if self._round is not None and here == (self._round.number, self._round.base.base):
                if self._round.decided:
                    return
                self._round.receive(message)
            elif self._gathering is not None and here == (position.round, position.base):
                self._gathering.receive(message, self._clock.monotonic())
                self._changed.set()
            elif content.round > position.round:
                self._pending.append((peer, envelope))
            else:
                self._answer_certificate(message.signer, content.round, content.base)
        except RemoteProtocolError as error:
            self._refusals.add(peer, "agreement", error)

    def _receive_certificate(self, peer: PeerId, certificate: Certificate) -> None:
        if self._round is None or self._round.decided:
            return
        here = (self._round.number, self._round.base.base)
        if (certificate.round, certificate.base) != here:
            return  # an answer to what was asked before the round ended: nobody's fault
        try:
            self._round.receive_certificate(certificate)
        except RemoteProtocolError as error:
            self._refusals.add(peer, "certificate", error)

    def _answer_certificate(self, peer: PeerId, round_number: int, base: bytes) -> None:
        certificate = self.lineage.certificate_of(round_number)
        if certificate is not None and certificate.base == base:
            self._speaker.send(peer, CertificateReply(certificate=certificate))

    # Small things

    def _set_phase(self, phase: Phase) -> None:
        self.phase = phase

    def _announce_standing(self) -> None:
        standing = self.standing()
        if standing != self._said:
            self._said = standing
            self._speaker.broadcast(standing)

    async def _beat(self) -> None:
        while True:
            self._said = self.standing()
            self._speaker.broadcast(self._said)
            if self._round is not None:
                self._round.wake()
            await asyncio.sleep(BEAT_S)

    async def _next_change(self, at_most_s: float = BEAT_S) -> None:
        """Return when something changed, or soon."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):  # looking again is all that it is for
            async with asyncio.timeout(at_most_s):
                await self._changed.wait()
