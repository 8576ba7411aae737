"""Two rounds of a task with another peer in memory, in the processes in which a peer trains.

What a check in one process cannot see shows here: what a task does in another thread than the one
that loaded it, what it needs of its environment, and how much memory the processes take.
"""

import asyncio
import time
from pathlib import Path

import msgspec

from daemon.host.scratch import scratch_directory
from daemon.worker.processes import WorkerProcesses
from daemon.worker.program import Message
from daemon.worker.rehearsed import Rehearsed
from ml.aggregate.needed_updates import needed_updates
from ml.averaging.messages import Apply, CheckUpdate, Contribution, Mix, Neighbour
from ml.opening import Opening, StateReady, TaskOpened, Trained
from ml.round_steps import advance, evaluate, train_round
from ml.task.choice import TaskChoice
from p2pd import messages as trainer
from p2pd.metrics import finite
from protocol.statements.swarm import RoundSettings

MOST_TRAINING_S = 20.0
"""A round's local work may take hours: it is ended early then."""


async def rehearse(task: str, *, builtin: bool, data_dir: str) -> Rehearsed:
    """Take the rounds, with the settings that the task suggests.

    Raises :class:`ConfigError` and :class:`WorkerError` saying what is wrong.

    Example (daemon/cli/task.py)::

        rehearsed = asyncio.run(rehearse(task, builtin=builtin, data_dir=data_dir))
    """
    with scratch_directory("p2pd-check-") as scratch:
        async with WorkerProcesses(own_files=[scratch]) as processes:
            choice = TaskChoice(task, builtin, 0, 1, data_dir=data_dir, seed=0)
            return await _Rehearsal(processes, choice, scratch).take()


class _Rehearsal:
    def __init__(self, processes: WorkerProcesses, choice: TaskChoice, scratch: Path) -> None:
        self._processes = processes
        self._choice = choice
        self._scratch = scratch
        self._settings = RoundSettings()
        self._samples_per_second = 0.0
        processes.listeners.append(self)

    def said(self, message: Message) -> None:
        """See :class:`daemon.worker.child.ChildListener`."""
        if isinstance(message, trainer.Progress):
            self._samples_per_second = message.samples_per_second

    async def take(self) -> Rehearsed:
        opened = await self._open()
        if opened.suggestion != self._settings:
            self._settings = opened.suggestion
            opened = await self._open()
        await self._average(await self._train(1))
        began_s = time.monotonic()
        trained = await self._train(2)
        trained_s = time.monotonic()
        state = await self._average(trained)
        ended_s = time.monotonic()
        state = await self._processes.take(evaluate(state))
        both = self._processes
        return Rehearsed(
            device=opened.device,
            device_problem=opened.device_problem,
            steps=trained.steps,
            samples_per_second=self._samples_per_second
            or trained.sample_count / max(trained.seconds, 1e-9),
            training_s=trained_s - began_s,
            averaging_s=ended_s - trained_s,
            update_bytes=trained.updates[0].size_bytes,
            state_bytes=state.state.size_bytes,
            trainer_bytes=_peak_bytes(both.trainer.pid),
            averager_bytes=_peak_bytes(both.averager.pid),
            loss=finite(state.loss),
            metrics=state.metrics,
        )

    async def _open(self) -> TaskOpened:
        choice = msgspec.structs.replace(self._choice, partition=self._settings.partition)
        opening = Opening(choice, self._settings, str(self._scratch), threads=0, device="auto")
        return await self._processes.open_once(opening)

    async def _train(self, number: int) -> Trained:
        loop = asyncio.get_running_loop()
        end = loop.call_later(MOST_TRAINING_S, self._processes.trainer.say, trainer.Finish())
        try:
            return await self._processes.take(train_round(number, 1))
        finally:
            end.cancel()

    async def _average(self, trained: Trained) -> StateReady:
        """Average with others, who have come to the same."""
        own, processes = trained.updates[0], self._processes
        await processes.averager.ask(CheckUpdate(trained.round, own.path))
        if self._settings.exchange == "gossip":
            mix = Mix(trained.round, own.path, (Neighbour("another", own.path, 0.5),))
            return await processes.take(advance(mix))
        count = max(2, needed_updates(self._settings.aggregation))
        contributions = tuple(
            Contribution(f"peer {index}", own.path, trained.sample_count) for index in range(count)
        )
        return await processes.take(advance(Apply(trained.round, contributions)))


def _peak_bytes(pid: int) -> int | None:
    """The most memory that a process had; None where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith("VmHWM:")), None)
    return None if found is None else 1024 * int(found[1])
