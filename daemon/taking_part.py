"""A peer that takes part: its rounds, what trains kept alive, and a script of the user's kept told.

A script learns once a second, and before each round, how the swarm stands: for schedules of
learning rates, for people, and so that it notices the end.
"""

import asyncio
import logging

from daemon.rounds.rounds import Rounds
from daemon.worker.program import Message
from daemon.worker.worker import TaskWorker
from ml.opening import metrics_from
from p2pd.messages import Judged, Standing
from protocol.errors import WorkerError

INTERVAL_S = 1.0
LAST_EVALUATION_S = 600.0
"""For which a peer whose rounds are done stays."""

_log = logging.getLogger("p2pd.training")


async def take_part(worker: TaskWorker, rounds: Rounds, *, by_script: bool) -> None:
    """Until this peer's rounds are done, or a script of the user's that trains has ended."""
    async with asyncio.TaskGroup() as work:
        keeping = work.create_task(worker.keep_alive(rounds.training.worker_restarted))
        running = work.create_task(rounds.run())
        tasks = [keeping, running]
        talk = _Talk(rounds)
        if by_script:
            worker.processes.listeners.append(talk)
            worker.teller = talk
            tasks.append(work.create_task(_keep_told(worker, talk)))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await worker.end_evaluations(LAST_EVALUATION_S)
        if by_script:
            worker.tell(talk.standing(complete=running.done()))
        for task in tasks:
            task.cancel()


class _Talk:
    """The talk with a script of the user's: what it is told, and what it says by itself."""

    def __init__(self, rounds: Rounds) -> None:
        self._training = rounds.training
        self._evaluations = rounds.evaluations

    def said(self, message: Message) -> None:
        """See :class:`daemon.worker.child.ChildListener`: it may say how good a state is."""
        if isinstance(message, Judged):
            try:
                metrics = metrics_from(message.metrics)
            except WorkerError as error:
                _log.warning("%s", error)
            else:
                self._evaluations.judge_round(message.round, message.loss, metrics)

    def standing(self, *, complete: bool = False) -> Standing:
        """See :class:`daemon.worker.worker.Teller`. ``complete``: no round follows for this
        peer."""
        training = self._training
        position = training.lineage.position
        return Standing(
            round=position.round,
            root=position.base.hex(),
            peers=max(1, len(training.lineage.roster)),
            samples=round(training.history.samples_a_round * position.round),
            phase=training.phase,
            waits_for=training.waits_for,
            complete=complete or training.is_complete,
        )


async def _keep_told(worker: TaskWorker, talk: _Talk) -> None:
    """Tell it again and again: a script that was started again knows nothing yet."""
    while True:
        worker.tell(talk.standing())
        await asyncio.sleep(INTERVAL_S)
