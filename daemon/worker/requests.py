"""The worker process as the daemon holds it: started, asked, watched, ended; no torch in here.

A request is answered, or fails when the worker dies. A worker that shows no sign of life for too
long (daemon/worker/pulse.py) is killed, since nothing else would bring it back.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from daemon.worker.process import WorkerDiedError, WorkerLife
from daemon.worker.pulse import KILL_AFTER_S, STUCK_AFTER_S, WorkerPulse
from ml.worker.messages import (
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
    FromWorker,
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
    Working,
)
from protocol.errors import ConfigError, VerificationError, WorkerError

__all__ = ["WorkerDiedError", "WorkerProcess"]

WATCH_INTERVAL_S = 1.0

Reply = TypeVar("Reply", bound=WorkerReply)

_log = logging.getLogger("p2pd.worker")


class WorkerProcess:
    """A context manager: entering starts the process, leaving ends it, whatever happened."""

    def __init__(
        self,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        stuck_after_s: float = STUCK_AFTER_S,
        kill_after_s: float = KILL_AFTER_S,
    ) -> None:
        """``on_progress`` is called about once a second while it trains."""
        self._on_progress = on_progress
        self._tasks = asyncio.TaskGroup()
        self._watching: asyncio.Task[None] | None = None
        self._life: WorkerLife | None = None
        self._next_request = 1
        self.pulse = WorkerPulse(stuck_after_s=stuck_after_s, kill_after_s=kill_after_s)
        """Whether it gets on with what it was asked for."""

    async def __aenter__(self) -> "WorkerProcess":
        await self._tasks.__aenter__()
        try:
            await self.restart()
            self._watching = self._tasks.create_task(self._watch())
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
            if self._watching is not None:
                self._watching.cancel()
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
        self._life = await WorkerLife.start(self._tasks, self._hear)
        self.pulse.restarted()

    async def wait_died(self) -> str:
        """Return, once the process is gone, how it ended."""
        return await asyncio.shield(self._alive_or_dead().death)

    async def open_task(self, opening: OpenTask) -> TaskOpened:
        """Load task, data and checkpoint; ``opening``'s own request number does not matter.

        Raises :class:`ConfigError` for what the operator has to change.
        """
        number = self._number()
        request = msgspec.structs.replace(opening, request=number)
        return await self._ask(request, TaskOpened)

    async def train(self, round_number: int, parts: int = 1) -> Trained:
        """Train a round. Cancelling it ends the training without a result."""
        request = Train(self._number(), round_number, parts)
        try:
            return await self._ask(request, Trained)
        except asyncio.CancelledError:
            self._say(AbandonTraining(self._number()))
            raise

    def request_finish(self) -> None:
        """Have a training that runs, or is asked for already, end after the step in hand."""
        self._say(FinishTraining(self._number()))

    async def finish_training(self) -> None:
        """The same, and wait until the worker has heard it."""
        await self._ask(FinishTraining(self._number()), Finished)

    async def check_update(self, path: Path, part: int = 0, parts: int = 1) -> None:
        """Return if the update in ``path`` is sound. Raises :class:`VerificationError`."""
        request = CheckUpdate(self._number(), str(path), part, parts)
        await self._ask(request, Checked)

    async def apply(self, round_number: int, contributions: tuple[Contribution, ...]) -> StateReady:
        """Average a round's updates: the new state."""
        request = Apply(self._number(), round_number, contributions)
        return await self._ask(request, StateReady)

    async def reduce(
        self, round_number: int, part: int, parts: int, contributions: tuple[Contribution, ...]
    ) -> Reduced:
        """Average one part of a round's updates."""
        request = Reduce(self._number(), round_number, part, parts, contributions)
        return await self._ask(request, Reduced)

    async def apply_parts(
        self, round_number: int, parts: int, results: tuple[PartResult, ...]
    ) -> StateReady:
        """Apply averaged parts: the new state."""
        request = ApplyParts(self._number(), round_number, parts, results)
        return await self._ask(request, StateReady)

    async def mix(
        self, round_number: int, own_path: Path, neighbours: tuple[Neighbour, ...]
    ) -> StateReady:
        """Average the own parameters with neighbours': the new state."""
        request = Mix(self._number(), round_number, str(own_path), neighbours)
        return await self._ask(request, StateReady)

    async def load_state(self, round_number: int, path: Path, root: bytes) -> StateReady:
        """Take over a state. Raises :class:`VerificationError` when it is not sound."""
        request = LoadState(self._number(), round_number, str(path), root)
        return await self._ask(request, StateReady)

    async def note_traffic(self, round_number: int, bytes_sent: int, bytes_received: int) -> None:
        """Have the event files tell what went over the network in a round that has ended."""
        request = NoteTraffic(self._number(), round_number, bytes_sent, bytes_received)
        await self._ask(request, Finished)

    async def export(self, path: Path, round_number: int | None = None) -> Exported:
        """Write a round's model, by default the current one, to ``path``.

        Raises :class:`ConfigError` when that fails, or the round's checkpoint is not kept.
        """
        request = Export(self._number(), str(path), round_number)
        return await self._ask(request, Exported)

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

    async def _ask(self, request: WorkerRequest, kind: type[Reply]) -> Reply:
        life = self._alive_or_dead()
        if life.death.done():
            raise WorkerDiedError(life.death.result())
        # The thread that answers FinishTraining does so whatever the work is doing.
        if not isinstance(request, FinishTraining):
            self.pulse.asked(request.request, loads=isinstance(request, OpenTask))
        answer = life.expect(request.request)
        try:
            life.send(request)
            reply = await answer
        finally:
            life.forget(request.request)
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

    async def _watch(self) -> None:
        """Kill a worker that is silent for too long.

        Counted in seconds in which this loop ran, so that a daemon that was stopped for a while
        does not blame its worker for that.
        """
        pulse = self.pulse
        interval_s = min(WATCH_INTERVAL_S, pulse.stuck_after_s / 4, pulse.kill_after_s / 4)
        was_stuck = False
        while True:
            await asyncio.sleep(interval_s)
            life = self._alive_or_dead()
            if life.death.done():
                continue
            pulse.passed(interval_s)
            if pulse.is_stuck and not was_stuck:
                _log.warning("no sign of life from the worker for %.0f s", pulse.silent_s)
            was_stuck = pulse.is_stuck
            if pulse.is_overdue:
                pulse.killed()
                await life.kill(f"the worker showed no sign of life for {pulse.silent_s:.0f} s")

    def _hear(self, message: FromWorker) -> None:
        match message:
            case Progress():
                self.pulse.worked()
                if self._on_progress is not None:
                    self._on_progress(message)
            case Working():
                self.pulse.worked()
            case _:
                self.pulse.answered(message.request)
