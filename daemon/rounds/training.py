"""Keeps this peer in step with its swarm: gathers peers, runs rounds, catches up, rests when told
or when rounds fail here.

One activity runs at a time, together with a watch for peers that are ahead or on another line. When
the watch finds a state to take, the activity ends and this peer takes the state.
"""

import asyncio
import logging
from typing import Any

from daemon.rounds.at_hand import AtHand
from daemon.rounds.catch_up import BetterState, CatchUp
from daemon.rounds.evaluation.evaluations import Evaluations
from daemon.rounds.failures import RoundFailures
from daemon.rounds.kinds.agreed_round import AgreedRound
from daemon.rounds.kinds.allreduce_round import AllReduceRound
from daemon.rounds.kinds.choose import choose_exchange
from daemon.rounds.kinds.gossip_round import GossipRound
from daemon.rounds.kinds.mesh_round import MeshRound
from daemon.rounds.lineage.announcement import Announcement
from daemon.rounds.lineage.position import Position
from daemon.rounds.lineage.succession import Rivals
from daemon.rounds.parts import Parts
from daemon.rounds.phase import Phase
from daemon.rounds.start.beginning import Beginning
from daemon.rounds.start.gathering import Gathering
from daemon.rounds.updates import RoundUpdates
from ml.opening import StateReady, TaskOpened
from protocol.envelope import Domain
from protocol.errors import ConfigError, TransportError, WorkerError
from protocol.identity import PeerId
from protocol.peers.agreement_messages import Certificate
from protocol.peers.peer_messages import Agreement, Standing
from protocol.statements.swarm import UNLIMITED

BEAT_S = 1.0
TASK_TRIES = 5

_log = logging.getLogger("p2pd.training")


class Training:
    """One peer's part in the training of its swarm."""

    def __init__(
        self,
        parts: Parts,
        updates: RoundUpdates,
        at_hand: AtHand,
        catch_up: CatchUp,
        evaluations: Evaluations,
        own_rounds: int,
    ) -> None:
        """``own_rounds``: leave once that round is complete; 0: stay."""
        self.lineage = parts.lineage
        self.history = parts.history
        self.last_state: StateReady | None = None
        self.failures = RoundFailures()
        self._parts = parts
        self._updates = updates
        self._at_hand = at_hand
        self._catch_up = catch_up
        self._evaluations = evaluations
        self._own_rounds = own_rounds
        self._phase = Phase.STARTING
        self._started = False
        self._paused = False
        self._held = ""
        self._announcement = Announcement()
        self._interrupted = asyncio.Event()

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

    def hold(self, reason: str) -> None:
        """Train no more while there is a ``reason``, for people; stay in the swarm. Empty: none."""
        if reason != self._held:
            begins = not self.pause_reason
            self._held = reason
            if begins:
                self._interrupted.set()
            self.wake()

    @property
    def pause_reason(self) -> str:
        """Why this peer is paused, for people; empty: it is not."""
        return "until 'p2pd resume'" if self._paused else self._held

    def wake(self) -> None:
        """Look again: a session, a standing or the worker has changed."""
        self._parts.changes.notify()

    @property
    def phase(self) -> Phase:
        """What this peer is doing now."""
        round_ = self._at_hand.round
        return self._phase if round_ is None else round_.phase

    @property
    def awaited(self) -> frozenset[PeerId]:
        """The peers whose updates the present round waits for, once this peer's is there."""
        round_ = self._at_hand.round
        if round_ is None or round_.phase not in (Phase.EXCHANGING, Phase.WAITING):
            return frozenset()
        return round_.awaited

    @property
    def closes_in_s(self) -> float | None:
        """Seconds until the present round waits for nobody any more; None: not known."""
        return None if self._at_hand.round is None else self._at_hand.round.closes_in_s

    def standing(self) -> Standing:
        """What this peer says about itself."""
        position = self.lineage.position
        return Standing(
            round=position.round,
            base=position.base,
            contributors=self.lineage.contributors,
            started=self._started,
            ready=self._can_train
            and not self.is_complete
            and not self._rest_s
            and not self.sits_out,
            vouch=self._parts.speaker.vouch(position),
            takes_unasked=self._parts.blobs.takes_unasked,
        )

    @property
    def shortage(self) -> str:
        """Text for people: the peers or updates that the present round needs to end; empty:
        none."""
        return "" if self._at_hand.round is None else self._at_hand.round.shortage

    @property
    def sits_out(self) -> str:
        """Text for people: why this peer does not vote at the moment; empty: it does."""
        round_ = self._at_hand.round
        return round_.sits_out if isinstance(round_, AgreedRound) else ""

    @property
    def waits_for(self) -> str:
        """Text for people: what an unfinished gathering, or the present round, needs."""
        gathering = self._at_hand.gathering
        return self.shortage if gathering is None else gathering.needed()

    @property
    def lacks_initial_state(self) -> bool:
        """Whether this machine's round 0 differs from the founder's, which is still to be had."""
        position = self.lineage.position
        return position.round == 0 and position.base != self._parts.initial_root

    @property
    def _can_train(self) -> bool:
        is_ready = self._parts.worker.is_ready
        return is_ready and not self.pause_reason and not self.lacks_initial_state

    @property
    def _rest_s(self) -> float:
        """Seconds for which no round is tried, since the last ones failed."""
        return self.failures.left_s(self._parts.clock.monotonic())

    @property
    def is_complete(self) -> bool:
        """Whether the swarm's last round is done."""
        rounds = self._parts.settings.rounds
        return rounds != UNLIMITED and self.lineage.position.round >= rounds

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
            self._announce_standing()
        self.wake()

    # The loop

    async def run(self) -> None:
        """Take part until this peer's number of rounds is reached, or cancelled."""
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
            self._phase = self.phase
            self._at_hand.end()
        if not activity.cancelled():
            self._note_failure(activity)

    async def _take(self, better: BetterState) -> None:
        """Give this peer's state up for ``better``, unless this peer got there meanwhile."""
        if self.lineage.knows(better.offer.round, better.offer.root):
            return
        self._enter(Phase.FETCHING)
        self._started = False  # until those who have started say with whom
        try:
            state = await self._catch_up.take(better)
        except ConfigError as error:
            await asyncio.sleep(self._give_up("no state taken", error))
            return
        if state is not None:
            self.last_state = state
            self._evaluations.state_taken(state)
        self._announce_standing()

    def _note_failure(self, activity: "asyncio.Future[None]") -> None:
        """A round that could not end is given up; anything unexpected goes on up."""
        error = activity.exception()
        if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, ConfigError | TransportError | WorkerError):
            self._give_up("round given up", error)
            self._announce_standing()
        elif error is not None:
            raise error

    def _give_up(self, what: str, error: ConfigError | TransportError | WorkerError) -> float:
        """How long to pause. Where the task's own code fails that may pass, as when a device is
        out of memory; :data:`TASK_TRIES` times in a row it is the task's mistake, and is raised."""
        if isinstance(error, ConfigError) and self.failures.count >= TASK_TRIES - 1:
            raise error
        pause_s = self.failures.add(str(error), self._parts.clock.monotonic())
        _log.warning("%s: %s; again in %.0f s", what, error, pause_s)
        return pause_s

    async def _activity(self) -> None:
        if self.pause_reason or self.is_complete:
            self._enter(Phase.COMPLETE if self.is_complete else Phase.PAUSED)
            self._announce_standing()
            while self.pause_reason or self.is_complete:
                await self._parts.changes.wait()
        elif not self._can_train:
            self._enter(Phase.FETCHING if self._parts.worker.is_ready else Phase.STARTING)
            while not self._can_train:
                await self._parts.changes.wait()
        elif self._rest_s:
            self._enter(Phase.RETRYING)
            while rest_s := self._rest_s:
                await self._parts.changes.wait(rest_s)
            self._announce_standing()
        elif self._started:
            await self._run_round()
        elif self._parts.settings.exchange == "gossip":
            await self._begin()
        else:
            await self._gather()

    async def _run_round(self) -> None:
        round_ = self._new_round()
        self._at_hand.begin_round(round_)
        self.last_state = state = await round_.run()
        self._evaluations.round_ended(state, round_.averaged)
        self.failures.clear()
        self._announce_standing()

    def _new_round(self) -> AgreedRound | GossipRound:
        parts = self._parts
        roster_size = len(self.lineage.roster)
        match choose_exchange(parts.settings, roster_size, parts.max_update_bytes):
            case "gossip":
                return GossipRound(parts, self._updates)
            case "allreduce":
                return AllReduceRound(parts, self._updates)
            case _:
                return MeshRound(parts, self._updates)

    async def _begin(self) -> None:
        """Begin to gossip; the first round waits for others, and nothing is agreed on."""
        if self.lineage.position.round == 0:
            self._enter(Phase.WAITING)
            beginning = Beginning(self._parts.me, self.lineage.position.base)
            self._at_hand.begin_gathering(beginning)
            while not self._is_due(beginning):
                timer, now = beginning.get_timer(), self._parts.clock.monotonic()
                await self._parts.changes.wait(BEAT_S if timer is None else timer - now)
            self._at_hand.end()
        self._started = True
        self._announce_standing()

    def _is_due(self, beginning: Beginning) -> bool:
        parts, now = self._parts, self._parts.clock.monotonic()
        needed = parts.settings.min_peers
        if parts.view.is_partial:
            needed = min(needed, 1 + len(parts.view.needed))
        beginning.look(parts.standings.live(), needed=needed, now=now)
        return beginning.is_due(now)

    async def _gather(self) -> None:
        """Wait for peers on the same state, and start with them, or with those who have started."""
        self._enter(Phase.WAITING)
        position = self.lineage.position
        gathering = Gathering(
            self._parts.me,
            round_number=position.round,
            base=position.base,
            last_roster=self.lineage.roster,
            min_peers=self._parts.settings.min_peers,
            now=self._parts.clock.monotonic(),
        )
        self._at_hand.begin_gathering(gathering)
        certificate = await self._start_certificate(gathering)
        self.lineage.start(certificate)
        self._started = True
        self._at_hand.end()
        self._announce_standing()

    async def _start_certificate(self, gathering: Gathering) -> Certificate:
        """How the round at hand was started: by those who have started, or together from here."""
        position = self.lineage.position
        while gathering.certificate is None:
            now = self._parts.clock.monotonic()
            same = self._parts.standings.ready_at(position.round, position.base)
            certificate = self._catch_up.certificate_of_started(same)
            if certificate is not None:
                return certificate
            waiting = self._parts.standings.not_started(same)
            gathering.set_candidates(waiting | {self._parts.me}, now)
            for message in gathering.messages_to_send():
                envelope = self._parts.speaker.seal(Domain.AGREEMENT, message)
                self._parts.speaker.broadcast(Agreement(envelope=envelope))
                gathering.receive(self._parts.speaker.open_agreement(envelope), now)
            timer = gathering.get_timer()
            await self._parts.changes.wait(BEAT_S if timer is None else timer - now)
        return gathering.certificate

    def _is_about_to_follow(self, rivals: Rivals) -> bool:
        """Whether the round at hand is decided and leads to where the others are."""
        round_ = self._at_hand.round
        return round_ is not None and round_.decided and rivals.target.round <= round_.number

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self.history.enter(phase, self.lineage.position.round + 1)

    def _announce_standing(self) -> None:
        """Say where this peer stands, to those whom it has not told."""
        standing, now = self.standing(), self._parts.clock.monotonic()
        round_, said = self._at_hand.round, self._announcement
        concerned = round_.concerned if isinstance(round_, GossipRound) else None
        said.begin(standing, now, concerned)
        said.told = self._parts.speaker.broadcast(standing, but=said.told)

    async def _beat(self) -> None:
        """Look every :data:`BEAT_S` who has not been told: silent for a while, or without room."""
        while True:
            self._announce_standing()
            self._evaluations.look_again()
            self.wake()
            await asyncio.sleep(BEAT_S)
