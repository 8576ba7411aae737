"""One of the two processes as the daemon holds it: started, asked, watched, ended; no torch here.

A request is answered, or fails when the process dies. One that shows no sign of life for too long
(daemon/worker/pulse.py) is killed, since nothing else would bring it back.
"""

import asyncio
import logging
from types import TracebackType
from typing import Protocol, TypeVar

from daemon.worker.memory import SharedMemory
from daemon.worker.process import Life, WorkerDiedError
from daemon.worker.program import Message, Program
from daemon.worker.pulse import KILL_AFTER_S, STUCK_AFTER_S, WorkerPulse
from ml.averaging import messages as averager
from p2pd import messages as trainer
from protocol.errors import ConfigError, NoDataError, VerificationError, WorkerError
from transport.error_group import leave_tasks

WATCH_INTERVAL_S = 1.0
FIRST_REQUEST = 1

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")

_AT_ONCE = (trainer.Finish, trainer.Abandon, averager.TrialLosses)
"""The thread that answers these does so whatever the work is doing."""

_log = logging.getLogger("p2pd.worker")


class Request(Protocol[R_co]):
    """What can be asked: a message that knows what answers it."""

    def reply_kind(self) -> type[R_co]:
        """The type of the answer."""


class ChildListener(Protocol):
    """Who hears what a child says unasked."""

    def said(self, message: Message) -> None:
        """The child said ``message``."""


class NoStateError(WorkerError):
    """The averager has no checkpoint to begin from."""


class Child:
    """A context manager: entering starts the process, leaving ends it, whatever happened."""

    def __init__(
        self,
        program: Program,
        memory: SharedMemory,
        listener: "ChildListener",
        *,
        stuck_after_s: float = STUCK_AFTER_S,
        kill_after_s: float = KILL_AFTER_S,
    ) -> None:
        self._program = program
        self._memory = memory
        self._listener = listener
        self._tasks = asyncio.TaskGroup()
        self._watching: asyncio.Task[None] | None = None
        self._life: Life | None = None
        self._next_request = FIRST_REQUEST
        self._asked = asyncio.Event()
        self.pulse = WorkerPulse(
            stuck_after_s=max(stuck_after_s, program.silent_for_s),
            kill_after_s=max(kill_after_s, program.silent_for_s),
        )
        """Whether it gets on with what it was asked for."""

    async def __aenter__(self) -> "Child":
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
                await self._life.end(was_asked=self._next_request > FIRST_REQUEST)
        finally:
            await leave_tasks(self._tasks, error)

    @property
    def pid(self) -> int:
        """The process id of the present process, or of the last one."""
        return self._alive_or_dead().pid

    @property
    def has_left(self) -> bool:
        """Whether the process that ran last ended since it had nothing more to do here."""
        return self._alive_or_dead().has_left

    async def restart(self) -> None:
        """Start the process; one that still runs is ended first. No task is open then."""
        if self._life is not None:
            await self._life.end()
        self._life = await Life.start(self._program, self._memory.descriptors, self._tasks, self)
        self.pulse.restarted()

    async def wait_died(self) -> str:
        """Return, once the process is gone, how it ended."""
        return await asyncio.shield(self._alive_or_dead().death)

    async def ask(self, request: Request[R]) -> R:
        """What the process answers.

        Raises :class:`ConfigError`, :class:`VerificationError` and :class:`WorkerError` as it says,
        :class:`WorkerDiedError` when it dies before that.
        """
        life = self._alive_or_dead()
        if life.death.done():
            raise WorkerDiedError(life.death.result())
        number = self._next_request
        self._next_request += 1
        if not isinstance(request, _AT_ONCE):
            self.pulse.asked(number, loads=isinstance(request, trainer.Open | averager.OpenStates))
            self._asked.set()
        answer = life.expect(number)
        try:
            life.send(number, request)
            reply = await answer
        except asyncio.CancelledError:
            if isinstance(request, trainer.Train):
                self.say(trainer.Abandon())
            raise
        finally:
            life.forget(number)
        if isinstance(reply, trainer.Failed | averager.Failed):
            raise _error_of(reply)
        if not isinstance(reply, request.reply_kind()):
            raise WorkerError(
                f"the {self._program.name} answered {type(reply).__name__} to"
                f" {type(request).__name__}"
            )
        return reply

    def say(self, request: object) -> None:
        """Ask for something whose answer does not matter. A dead process need not get it."""
        life = self._alive_or_dead()
        if not life.death.done():
            number = self._next_request
            self._next_request += 1
            life.send(number, request)

    async def shutdown(self) -> None:
        """End the process in good order; leaving the context does so too."""
        await self._alive_or_dead().end()

    def said(self, message: Message) -> None:
        """The child said something unasked: a sign of life."""
        self.pulse.worked()
        self._listener.said(message)

    def answered(self, number: int) -> None:
        """The child answered a request."""
        self.pulse.answered(number)

    def _alive_or_dead(self) -> Life:
        if self._life is None:
            raise WorkerDiedError(f"the {self._program.name} has not been started")
        return self._life

    async def _watch(self) -> None:
        """Kill a process that is silent for too long.

        Counted in seconds in which this loop ran, so that a daemon that was stopped for a while
        does not blame its processes for that.
        """
        pulse = self.pulse
        interval_s = min(WATCH_INTERVAL_S, pulse.stuck_after_s / 4, pulse.kill_after_s / 4)
        was_stuck = False
        while True:
            if not pulse.owes:
                self._asked.clear()
                await self._asked.wait()
            await asyncio.sleep(interval_s)
            life = self._alive_or_dead()
            if life.death.done():
                continue
            pulse.passed(interval_s)
            if pulse.is_stuck and not was_stuck:
                _log.warning(
                    "no sign of life from the %s for %.0f s", self._program.name, pulse.silent_s
                )
            was_stuck = pulse.is_stuck
            if pulse.is_overdue:
                pulse.killed()
                await life.kill(
                    f"the {self._program.name} showed no sign of life for {pulse.silent_s:.0f} s"
                )


def _error_of(failed: trainer.Failed | averager.Failed) -> Exception:
    match failed.kind:
        case "config":
            return ConfigError(failed.text)
        case "data":
            return NoDataError(failed.text)
        case "rejected":
            return VerificationError(failed.text)
        case "no_state":
            return NoStateError(failed.text)
    return WorkerError(failed.text)
