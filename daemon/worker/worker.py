"""The worker as the rest of the daemon sees it: always there, if perhaps not at the moment.

A worker process that dies is started again from its last checkpoint; what it was asked meanwhile
waits, and what it was doing is asked again. The peer stays in the swarm all the while, and says
that it is not ready.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from daemon.net.traffic import TrafficMeter
from daemon.worker.requests import WorkerDiedError, WorkerProcess
from ml.state.blob import Blob
from ml.worker.messages import (
    Contribution,
    Exported,
    Neighbour,
    OpenTask,
    PartResult,
    Reduced,
    StateReady,
    TaskOpened,
    Trained,
)
from protocol.errors import WorkerError

T = TypeVar("T")

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
MAX_ATTEMPTS = 3
"""How often one request is asked again after the worker died of it, before it fails."""

_log = logging.getLogger("p2pd.worker")


class TaskWorker:
    """Asks a :class:`WorkerProcess`, and keeps it alive."""

    def __init__(
        self,
        process: WorkerProcess,
        opening: OpenTask,
        *,
        on_change: Callable[[], None],
        traffic: TrafficMeter,
    ) -> None:
        """``on_change`` is called whenever :attr:`is_ready` changed."""
        self._process = process
        self._opening = opening
        self._on_change = on_change
        self._traffic = traffic
        self._up = asyncio.Event()
        self._finish_early = False
        self.last_failure = ""
        """Why it is being started again; empty while it runs."""
        self.opened: TaskOpened | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the worker has the task loaded and can be asked now."""
        return self._up.is_set()

    async def open(self) -> TaskOpened:
        """Load the task for the first time. Raises :class:`ConfigError` or :class:`WorkerError`."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                self.opened = await self._process.open_task(self._opening)
                break
            except WorkerDiedError as error:
                if attempt == MAX_ATTEMPTS:
                    raise
                _log.warning("%s, while it loaded the task; starting it again", error)
                await self._process.restart()
        assert self.opened is not None
        self._up.set()
        self._on_change()
        return self.opened

    async def keep_alive(self, restarted: Callable[[TaskOpened], None]) -> None:
        """Start the worker again whenever it dies; ``restarted`` is told what it then holds.

        Runs until cancelled. Raises :class:`ConfigError` when the task cannot be loaded any more.
        """
        delay_s = FIRST_DELAY_S
        while True:
            self.last_failure = await self._process.wait_died()
            self._up.clear()
            self._on_change()
            _log.warning("%s; starting it again from its last checkpoint", self.last_failure)
            try:
                await self._process.restart()
                opened = await self._process.open_task(self._opening)
            except WorkerError as error:
                _log.error("the worker does not start (%s), again in %.0f s", error, delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(LONGEST_DELAY_S, 2 * delay_s)
                continue
            delay_s = FIRST_DELAY_S
            self.opened = opened
            self.last_failure = ""
            self._up.set()
            restarted(opened)
            self._on_change()

    async def train(self, round_number: int, parts: int = 1) -> Trained:
        """Train a round. Raises :class:`WorkerError`."""
        self._finish_early = False

        async def ask() -> Trained:
            training = asyncio.ensure_future(self._process.train(round_number, parts))
            try:
                await asyncio.sleep(0)  # let the request go out before it is cut short
                if self._finish_early:
                    self._process.request_finish()
                return await training
            finally:
                training.cancel()

        return await self._ask(ask)

    def finish_training(self) -> None:
        """End the training that runs, or is about to, after the step in hand."""
        if not self._finish_early:
            self._finish_early = True
            self._process.request_finish()

    async def check_update(self, path: Path, part: int = 0, parts: int = 1) -> None:
        """Return if the update in ``path`` is sound. Raises :class:`VerificationError`."""
        await self._ask(lambda: self._process.check_update(path, part, parts))

    async def apply(self, round_number: int, contributions: tuple[Contribution, ...]) -> StateReady:
        """Average a round's updates: the new state. Raises :class:`WorkerError`."""
        return await self._advance(
            round_number, lambda: self._process.apply(round_number, contributions)
        )

    async def reduce(
        self, round_number: int, part: int, parts: int, contributions: tuple[Contribution, ...]
    ) -> Reduced:
        """Average one part of a round's updates. Raises :class:`WorkerError`."""
        return await self._ask(
            lambda: self._process.reduce(round_number, part, parts, contributions)
        )

    async def apply_parts(
        self, round_number: int, parts: int, results: tuple[PartResult, ...]
    ) -> StateReady:
        """Apply averaged parts: the new state. Raises :class:`WorkerError`."""
        return await self._advance(
            round_number, lambda: self._process.apply_parts(round_number, parts, results)
        )

    async def mix(
        self, round_number: int, own_path: Path, neighbours: tuple[Neighbour, ...]
    ) -> StateReady:
        """Average the own parameters with neighbours': the new state."""
        return await self._advance(
            round_number, lambda: self._process.mix(round_number, own_path, neighbours)
        )

    async def load_state(self, round_number: int, path: Path, root: bytes) -> StateReady:
        """Take over a state. Raises :class:`VerificationError` when it is not sound."""
        return await self._ask(lambda: self._process.load_state(round_number, path, root))

    async def export(self, path: Path, round_number: int | None = None) -> Exported:
        """Write a round's model, by default the current one, to ``path``.

        Raises :class:`WorkerError`, and :class:`ConfigError` for a round that is not kept.
        """
        return await self._ask(lambda: self._process.export(path, round_number))

    async def _advance(
        self, round_number: int, ask: Callable[[], Awaitable[StateReady]]
    ) -> StateReady:
        """Ask for a round's end; a worker that died after its checkpoint has it behind it."""

        async def ask_once() -> StateReady:
            if self.opened is not None and self.opened.round == round_number:
                own: Blob = self.opened.state
                return await self._process.load_state(round_number, Path(own.path), own.root)
            return await ask()

        ready = await self._ask(ask_once)
        if self._opening.event_dir:
            # A worker that dies meanwhile leaves a number out of its event file, and no more.
            with contextlib.suppress(WorkerDiedError):
                await self._process.note_traffic(round_number, *self._traffic.take())
        return ready

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            await self._up.wait()
            try:
                return await ask()
            except WorkerDiedError:
                if attempt == MAX_ATTEMPTS:
                    raise
                self._up.clear()
        raise AssertionError("unreachable")
