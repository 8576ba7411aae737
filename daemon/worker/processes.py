"""The two processes beside the daemon, as one thing: which request is for whom, who says what."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from daemon.host.python_child import require_torch
from daemon.worker.child import Child, ChildListener
from daemon.worker.memory import SharedMemory
from daemon.worker.program import TRAINER, Message, Program, averager_in
from daemon.worker.pulse import KILL_AFTER_S, STUCK_AFTER_S, WorkerPulse
from ml.averaging.messages import AveragerRequest
from ml.opening import Opening, TaskOpened
from ml.round_steps import Steps, open_task

T = TypeVar("T")


class WorkerProcesses:
    """The two processes and the memory that they share. A context manager: inside they run."""

    def __init__(
        self,
        program: Program = TRAINER,
        *listeners: ChildListener,
        own_files: Sequence[Path] = (),
        stuck_after_s: float = STUCK_AFTER_S,
        kill_after_s: float = KILL_AFTER_S,
        niceness: int = 0,
    ) -> None:
        """``program``: the trainer. ``listeners`` hear what the two say unasked:
        :class:`p2pd.messages.Progress` about once a second while it trains. ``own_files``: the
        directories, which are there, to whose files the averager is kept; none: it gets to all."""
        self._needs_torch = program.needs_torch
        self.listeners = list(listeners)
        self._stack = contextlib.AsyncExitStack()
        self._memory = SharedMemory()
        self.trainer = Child(
            replace(program, niceness=niceness),
            self._memory,
            self,
            stuck_after_s=stuck_after_s,
            kill_after_s=kill_after_s,
        )
        self.averager = Child(
            replace(averager_in(own_files), niceness=niceness),
            self._memory,
            self,
            stuck_after_s=stuck_after_s,
            kill_after_s=kill_after_s,
        )

    async def __aenter__(self) -> "WorkerProcesses":
        """Raises :class:`ConfigError` where torch is not installed."""
        if self._needs_torch:
            require_torch()
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._memory)
            await stack.enter_async_context(self.averager)
            await stack.enter_async_context(self.trainer)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    @property
    def both(self) -> tuple[Child, Child]:
        """Averager and trainer."""
        return self.averager, self.trainer

    @property
    def stuck_pulse(self) -> WorkerPulse | None:
        """The pulse of the process that is stuck in a request, if any."""
        return next((child.pulse for child in self.both if child.pulse.is_stuck), None)

    def of(self, request: object) -> Child:
        """The process that ``request`` is for."""
        return self.averager if isinstance(request, AveragerRequest) else self.trainer

    async def take(self, steps: Steps[T]) -> T:
        """Go through ``steps``, with one attempt each.

        Raises what :meth:`daemon.worker.child.Child.ask` does.
        """
        return await take(steps, lambda request: self.of(request).ask(request))

    async def open_once(self, opening: Opening) -> TaskOpened:
        """Load a task, with no further attempt. Raises as :meth:`TaskWorker.open`."""
        _, opened = await self.take(open_task(opening))
        return opened

    def said(self, message: Message) -> None:
        """See :class:`ChildListener`: one of the two said something unasked."""
        for listener in self.listeners:
            listener.said(message)


async def take(steps: Steps[T], ask: Callable[[Any], Any]) -> T:
    """Go through ``steps``; ``ask`` gets the answer to each request.

    >>> import asyncio
    >>> def steps():  # as those of ml/round_steps.py
    ...     answer = yield "open the task"
    ...     return f"it has {answer}"
    >>> async def ask(request):
    ...     return "1797 samples"
    >>> asyncio.run(take(steps(), ask))
    'it has 1797 samples'
    """
    reply: Any = None
    with contextlib.closing(steps):
        while True:
            try:
                request = steps.send(reply)
            except StopIteration as done:
                result: T = done.value
                return result
            reply = await ask(request)
