"""The averager and the trainer as the rest of the daemon sees them: restarted when they die, while
requests wait.

Each process that dies is started again by itself: the averager goes on from its last checkpoint,
the trainer from the base memory, and neither ends what the other is doing. Requests wait meanwhile,
and the one under way is asked again. The peer stays in the swarm all the while, and says that it is
not ready.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from daemon.net.traffic import TrafficMeter
from daemon.worker.child import Child, NoStateError, Request
from daemon.worker.process import WorkerDiedError
from daemon.worker.processes import WorkerProcesses, take
from daemon.worker.program import Message
from daemon.worker.trainer import Judge, PartTaker
from ml.averaging.messages import (
    Apply,
    ApplyParts,
    LoadState,
    Mix,
    NoteTraffic,
    OpenStates,
    PartWritten,
    StatesOpened,
    TrialLosses,
    TrialWanted,
    UpdateFound,
    WriteUpdate,
)
from ml.opening import Opening, StateReady, TaskOpened, Trained
from ml.round_steps import Advance, Steps, advance, evaluate, open_task, train_round
from p2pd import messages as trainer
from protocol.errors import ConfigError, P2PDError, WorkerError
from transport.backoff import Backoff
from transport.error_group import first_error

T = TypeVar("T")

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
MAX_ATTEMPTS = 3
"""How often one request is asked again after a process died of it, before it fails."""

_log = logging.getLogger("p2pd.worker")


class Teller(Protocol):
    """Who knows how the swarm stands."""

    def standing(self) -> trainer.Standing:
        """How it stands now."""


class TaskWorker:
    """Asks :class:`WorkerProcesses`, and keeps them alive.

    Example (daemon/peer.py)::

        worker = TaskWorker(
        opened = await worker.open()
        exported = await self._require_training().worker.ask(Export(str(path), round_number))
    """

    def __init__(
        self,
        processes: WorkerProcesses,
        opening: Opening,
        *,
        on_change: Callable[[], None],
        traffic: TrafficMeter,
    ) -> None:
        """``on_change`` is called whenever :attr:`is_ready` changed."""
        self.processes = processes
        self._opening = opening
        self._on_change = on_change
        self._traffic = traffic
        self._up = {child: asyncio.Event() for child in processes.both}
        self._finish_early = False
        self._trials: set[asyncio.Task[None]] = set()
        self._evaluations: set[asyncio.Task[None]] = set()
        self.model: trainer.Opened | None = None
        """What the trainer opened, first of all."""
        self._states: StatesOpened | None = None
        """What the averager that runs began with, if that is not its first life."""
        self.last_failure = ""
        """Why one is being started again; empty while both run."""
        self.opened: TaskOpened | None = None
        self.teller: Teller | None = None
        """Who knows what a script of the user's is told before each round; None: there is none."""
        processes.listeners.append(self)

    @property
    def is_ready(self) -> bool:
        """Whether both have the task loaded and can be asked now."""
        return all(up.is_set() for up in self._up.values())

    async def open(self) -> TaskOpened:
        """Load the task for the first time. Raises :class:`ConfigError` or :class:`WorkerError`."""
        processes = self.processes
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                self.model, self.opened = await processes.take(open_task(self._opening))
                break
            except WorkerDiedError as error:
                if attempt == MAX_ATTEMPTS:
                    raise
                _log.warning("%s, while it loaded the task; starting it again", error)
                for child in processes.both:
                    await child.restart()
        assert self.opened is not None
        for up in self._up.values():
            up.set()
        self._on_change()
        return self.opened

    async def keep_alive(self, restarted: Callable[[TaskOpened], None]) -> None:
        """Start each process again whenever it dies; ``restarted`` is told what the averager holds.

        Runs until cancelled, or until a script of the user's has ended by itself. Raises
        :class:`ConfigError` when the task cannot be loaded any more.
        """

        async def averager_back() -> None:
            assert self.opened is not None
            self._states = states = await self._reopen_states()
            self.opened = replace(self.opened, round=states.round, state=states.state)
            restarted(self.opened)

        try:
            async with asyncio.TaskGroup() as tasks:
                keeping = tasks.create_task(
                    self._keep(self.processes.averager, "averager", averager_back)
                )
                await self._keep(self.processes.trainer, "trainer", self._reopen_model)
                keeping.cancel()
        except ExceptionGroup as group:
            raise first_error(group) from group

    async def train(
        self, round_number: int, parts: int = 1, first: int = 0, taker: PartTaker | None = None
    ) -> Trained:
        """Train a round. Raises :class:`WorkerError`."""
        self._finish_early = False
        if self.teller is not None:
            self.tell(self.teller.standing())

        async def ask(request: Request[Any]) -> Any:
            answer = await self.ask(request)
            if taker is not None:
                for part, written in _parts_in(request, answer):
                    taker.part_written(part, written)
            return answer

        return await take(train_round(round_number, parts, first), ask)

    def finish_training(self) -> None:
        """End the training that runs, or is about to, after the step in hand."""
        if not self._finish_early:
            self._finish_early = True
            self.processes.trainer.say(trainer.Finish())

    def tell(self, standing: trainer.Standing) -> None:
        """Let a script of the user's know how the swarm stands."""
        self.processes.trainer.say(standing)

    async def ask(self, request: Request[T]) -> T:
        """What one of the two answers to ``request``; asked again if it died of it.

        Raises :class:`WorkerError`, :class:`VerificationError` for a file that is not sound, and
        :class:`ConfigError` for what cannot be had (a round that is not kept).
        """
        child = self.processes.of(request)
        up = self._up[child]
        for attempt in range(1, MAX_ATTEMPTS + 1):
            await up.wait()
            try:
                return await self._ask_once(child, self._unless_done(request))
            except WorkerDiedError:
                if attempt == MAX_ATTEMPTS:
                    raise
                up.clear()
        raise AssertionError("unreachable")

    async def advance(self, request: Advance) -> StateReady:
        """The new state that ``request`` leads to. Raises as :meth:`ask`."""
        ready = await self._take(advance(request))
        self._states = None
        if self._opening.event_dir and not isinstance(request, LoadState):
            # An averager that dies meanwhile leaves a number out of its event file, and no more.
            with contextlib.suppress(WorkerDiedError):
                await self.processes.averager.ask(NoteTraffic(ready.round, *self._traffic.take()))
        return ready

    def evaluate(self, state: StateReady, judge: Judge) -> None:
        """Have ``state`` evaluated beside the next training; ``judge`` is told.

        To be called before the next training is asked for: so it comes before the next evaluation.
        """
        task = asyncio.ensure_future(self._evaluate(state, judge))
        self._evaluations.add(task)
        task.add_done_callback(self._evaluations.discard)

    async def end_evaluations(self, within_s: float) -> None:
        """Wait for what is being evaluated."""
        if self._evaluations:
            await asyncio.wait(self._evaluations, timeout=within_s)

    async def _evaluate(self, ready: StateReady, judge: Judge) -> None:
        try:
            ready = await self._take(evaluate(ready))
        except P2PDError as error:
            _log.warning("round %d was not evaluated: %s", ready.round, error)
        judge.judge(ready)

    async def _take(self, steps: Steps[T]) -> T:
        return await take(steps, self.ask)

    async def _ask_once(self, child: Child, request: Request[T]) -> T:
        if not isinstance(request, trainer.Train):
            return await child.ask(request)
        training = asyncio.ensure_future(child.ask(request))
        try:
            await asyncio.sleep(0)  # let the request go out before it is cut short
            if self._finish_early:
                child.say(trainer.Finish())
            return await training
        finally:
            training.cancel()

    def _unless_done(self, request: Request[T]) -> Request[T]:
        """``request``; or, where an averager that died after its checkpoint has the round's end
        behind it, to take that checkpoint."""
        states = self._states
        if not isinstance(request, Apply | ApplyParts | Mix):
            return request
        if states is None or states.round != request.round:
            return request
        again: Any = LoadState(states.round, states.state.path, states.state.root)
        found: Request[T] = again
        return found

    async def _keep(self, child: Child, name: str, reopen: Callable[[], Any]) -> None:
        backoff = Backoff(FIRST_DELAY_S, LONGEST_DELAY_S)
        while True:
            self.last_failure = await child.wait_died()
            self._up[child].clear()
            self._on_change()
            if child.has_left:
                return
            _log.warning("%s; starting it again", self.last_failure)
            try:
                await child.restart()
                await reopen()
            except (WorkerError, OSError) as error:
                delay_s = backoff.next_s()
                _log.error("the %s does not start (%s), again in %.0f s", name, error, delay_s)
                await child.shutdown()  # it may be alive, and of no use
                await asyncio.sleep(delay_s)
                continue
            backoff.reset()
            self.last_failure = ""
            self._up[child].set()
            self._on_change()

    async def _reopen_states(self) -> StatesOpened:
        """The averager takes up its last checkpoint, or else round 0 as the trainer makes it."""
        averager = self.processes.averager
        try:
            return await averager.ask(self._states_request(has_initial=False))
        except NoStateError:
            await self._up[self.processes.trainer].wait()
            await self.processes.trainer.ask(self._opening.for_trainer())
            return await averager.ask(self._states_request(has_initial=True))

    async def _reopen_model(self) -> None:
        """The trainer loads the task again, and has to come to the same model."""
        opened = await self.processes.trainer.ask(self._opening.for_trainer())
        before = self.model
        if before and (opened.tensors, opened.frozen) != (before.tensors, before.frozen):
            raise ConfigError("the task makes another model now than when this peer began")
        assert self.opened is not None
        self.opened = replace(
            self.opened, device=opened.device, device_problem=opened.device_problem
        )

    def _states_request(self, *, has_initial: bool) -> OpenStates:
        assert self.model is not None
        return self._opening.for_averager(self.model, has_initial=has_initial)

    def said(self, message: Message) -> None:
        """See :class:`ChildListener`. The averager may want the base memory's parameters tried."""
        if isinstance(message, TrialWanted):
            task = asyncio.ensure_future(self._try_out(message))
            self._trials.add(task)
            task.add_done_callback(self._trials.discard)

    async def _try_out(self, wanted: TrialWanted) -> None:
        try:
            tried = await self.ask(trainer.TryOut(wanted.round))
            losses = TrialLosses(tuple(float(loss) for loss in tried.losses))
        except (P2PDError, ValueError, TypeError) as error:
            losses = TrialLosses((), f"the trainer could not try a model: {error}")
        self.processes.averager.say(losses)


def _parts_in(request: object, answer: object) -> Iterable[tuple[int, PartWritten]]:
    """The parts of an update that an answer tells of."""
    match request, answer:
        case WriteUpdate(part=part), PartWritten():
            yield part, answer
        case _, UpdateFound(parts=parts):
            yield from enumerate(parts)
