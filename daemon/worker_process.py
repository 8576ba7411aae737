"""The worker process as the daemon holds it: started, asked, watched, ended; no torch in here.

A request is answered, or fails when the worker dies or does not answer in time. A worker that does
not answer is killed, since nothing else would bring it back.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from daemon.worker_life import WorkerDiedError, WorkerLife
from ml.worker_messages import (
    AbandonTraining,
    Apply,
    ApplyParts,
    Checked,
    CheckUpdate,
    Contribution,
    Export,
    Exported,
    Failed,
    Finished,
    FinishTraining,
    LoadState,
    Mix,
    Neighbour,
    NoteTraffic,
    OpenTask,
    PartResult,
    Progress,
    Reduce,
    Reduced,
    StateReady,
    TaskOpened,
    Train,
    Trained,
    WorkerReply,
    WorkerRequest,
)
from protocol.errors import ConfigError, VerificationError, WorkerError

__all__ = ["WorkerDiedError", "WorkerProcess"]

OPEN_DEADLINE_S = 1800.0
"""Loading may download a data set."""
WORK_DEADLINE_S = 600.0
"""For whatever reads, averages and evaluates; large models take their time."""
STALL_DEADLINE_S = 300.0
"""How long a training may make no progress. One step of a large model may take minutes."""

Reply = TypeVar("Reply", bound=WorkerReply)


class WorkerProcess:
    """A context manager: entering starts the process, leaving ends it, whatever happened."""

    def __init__(
        self,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        stall_deadline_s: float = STALL_DEADLINE_S,
    ) -> None:
        """``on_progress`` is called about once a second while it trains."""
        self._on_progress = on_progress
        self._stall_deadline_s = stall_deadline_s
        self._tasks = asyncio.TaskGroup()
        self._life: WorkerLife | None = None
        self._next_request = 1
        self.last_progress_monotonic = time.monotonic()
        """When the worker last showed that it gets on: a start, a reply or a training step."""

    async def __aenter__(self) -> "WorkerProcess":
        await self._tasks.__aenter__()
        try:
            await self.restart()
        except BaseException:
            await self._tasks.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._life is not None:
                await self._life.end()
        finally:
            # The group has to see a cancellation, which may be its own. Other errors of the body
            # are none of its tasks', and would come out wrapped in a group.
            if isinstance(error, asyncio.CancelledError):
                await self._tasks.__aexit__(kind, error, trace)
            else:
                await self._tasks.__aexit__(None, None, None)

    @property
    def pid(self) -> int:
        """Of the process that runs, or ran last."""
        return self._alive_or_dead().pid

    async def restart(self) -> None:
        """Start the process; one that still runs is ended first. No task is open then."""
        if self._life is not None:
            await self._life.end()
        self._life = await WorkerLife.start(self._tasks, self._receive_progress)
        self.last_progress_monotonic = time.monotonic()

    async def wait_died(self) -> str:
        """Return, once the process is gone, how it ended."""
        return await asyncio.shield(self._alive_or_dead().death)

    async def open_task(self, opening: OpenTask) -> TaskOpened:
        """Load task, data and checkpoint; ``opening``'s own request number does not matter.

        Raises :class:`ConfigError` for what the operator has to change.
        """
        number = self._number()
        request = msgspec.structs.replace(opening, request=number)
        return await self._ask(request, TaskOpened, OPEN_DEADLINE_S)

    async def train(self, round_number: int, parts: int = 1) -> Trained:
        """Train a round. Cancelling it ends the training without a result."""
        request = Train(self._number(), round_number, parts)
        try:
            return await self._ask(request, Trained, None)
        except asyncio.CancelledError:
            self._say(AbandonTraining(self._number()))
            raise

    def request_finish(self) -> None:
        """Have a training that runs, or is asked for already, end after the step in hand."""
        self._say(FinishTraining(self._number()))

    async def finish_training(self) -> None:
        """The same, and wait until the worker has heard it."""
        await self._ask(FinishTraining(self._number()), Finished, WORK_DEADLINE_S)

    async def check_update(self, path: Path, part: int = 0, parts: int = 1) -> None:
        """Return if the update in ``path`` is sound. Raises :class:`VerificationError`."""
        request = CheckUpdate(self._number(), str(path), part, parts)
        await self._ask(request, Checked, WORK_DEADLINE_S)

    async def apply(self, round_number: int, contributions: tuple[Contribution, ...]) -> StateReady:
        """Average a round's updates: the new state."""
        request = Apply(self._number(), round_number, contributions)
        return await self._ask(request, StateReady, WORK_DEADLINE_S)

    async def reduce(
        self, round_number: int, part: int, parts: int, contributions: tuple[Contribution, ...]
    ) -> Reduced:
        """Average one part of a round's updates."""
        request = Reduce(self._number(), round_number, part, parts, contributions)
        return await self._ask(request, Reduced, WORK_DEADLINE_S)

    async def apply_parts(
        self, round_number: int, parts: int, results: tuple[PartResult, ...]
    ) -> StateReady:
        """Apply averaged parts: the new state."""
        request = ApplyParts(self._number(), round_number, parts, results)
        return await self._ask(request, StateReady, WORK_DEADLINE_S)

    async def mix(
        self, round_number: int, own_path: Path, neighbours: tuple[Neighbour, ...]
    ) -> StateReady:
        """Average the own parameters with neighbours': the new state."""
        request = Mix(self._number(), round_number, str(own_path), neighbours)
        return await self._ask(request, StateReady, WORK_DEADLINE_S)

    async def load_state(self, round_number: int, path: Path, root: bytes) -> StateReady:
        """Take over a state. Raises :class:`VerificationError` when it is not sound."""
        request = LoadState(self._number(), round_number, str(path), root)
        return await self._ask(request, StateReady, WORK_DEADLINE_S)

    async def note_traffic(self, round_number: int, bytes_sent: int, bytes_received: int) -> None:
        """Have the event files tell what went over the network in a round that has ended."""
        request = NoteTraffic(self._number(), round_number, bytes_sent, bytes_received)
        await self._ask(request, Finished, WORK_DEADLINE_S)

    async def export(self, path: Path, round_number: int | None = None) -> Exported:
        """Write a round's model, by default the current one, to ``path``.

        Raises :class:`ConfigError` when that fails, or the round's checkpoint is not kept.
        """
        request = Export(self._number(), str(path), round_number)
        return await self._ask(request, Exported, WORK_DEADLINE_S)

    async def shutdown(self) -> None:
        """End the process in good order; leaving the context does so too."""
        await self._alive_or_dead().end()

    def _number(self) -> int:
        number = self._next_request
        self._next_request += 1
        return number

    def _alive_or_dead(self) -> "WorkerLife":
        if self._life is None:
            raise WorkerDiedError("the worker has not been started")
        return self._life

    def _say(self, request: WorkerRequest) -> None:
        """Ask for something whose answer does not matter; to a dead worker it does not either."""
        life = self._alive_or_dead()
        if not life.death.done():
            life.send(request)

    async def _ask(
        self, request: WorkerRequest, kind: type[Reply], deadline_s: float | None
    ) -> Reply:
        life = self._alive_or_dead()
        if life.death.done():
            raise WorkerDiedError(life.death.result())
        self.last_progress_monotonic = time.monotonic()
        answer = life.expect(request.request)
        try:
            life.send(request)
            if deadline_s is None:
                reply = await self._watch(answer, life)
            else:
                async with asyncio.timeout(deadline_s):
                    reply = await answer
        except TimeoutError:
            reason = f"the worker did not answer {type(request).__name__} in {deadline_s:.0f} s"
            await life.kill(reason)
            raise WorkerDiedError(reason) from None
        finally:
            life.forget(request.request)
        self.last_progress_monotonic = time.monotonic()
        match reply:
            case Failed(_, "config", text):
                raise ConfigError(text)
            case Failed(_, "rejected", text):
                raise VerificationError(text)
            case Failed(_, _, text):
                raise WorkerError(text)
        if not isinstance(reply, kind):
            raise WorkerError(f"the worker answered {type(reply).__name__} to {request}")
        return reply

    async def _watch(
        self, answer: "asyncio.Future[WorkerReply]", life: "WorkerLife"
    ) -> WorkerReply:
        """Wait as long as there is progress.

        Counted in seconds in which this loop ran, so that a daemon that was stopped for a while
        does not blame its worker for that.
        """
        idle_s = 0
        while True:
            before = self.last_progress_monotonic
            done, _ = await asyncio.wait([answer], timeout=1.0)
            if done:
                return answer.result()
            idle_s = 0 if self.last_progress_monotonic > before else idle_s + 1
            if idle_s >= self._stall_deadline_s:
                reason = f"the training made no progress for {idle_s} s"
                await life.kill(reason)
                raise WorkerDiedError(reason)

    def _receive_progress(self, progress: Progress) -> None:
        self.last_progress_monotonic = time.monotonic()
        if self._on_progress is not None:
            self._on_progress(progress)
