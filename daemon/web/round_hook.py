"""Runs a command of the user's after each round, with what happened in it as one JSON line.

Invariants:

- The command holds no round up, since it is told of rounds that are over, once they are evaluated.
- One runs at a time, each for :data:`LONGEST_S` at most; then its whole process group is killed.
- A failure is logged and changes nothing else.

Rounds that come faster than the command follow one by one, as far as the history keeps them. When
the peer takes another line of rounds, which is not as far, what it makes there is told too.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
from collections.abc import Callable

import msgspec

from daemon.control.history import History
from daemon.control.status import Status
from daemon.rounds.record.round_record import RoundRecord
from daemon.web.page_server import Shown
from protocol.metric import MetricValue

LOOK_S = 1.0
LONGEST_S = 60.0
FAREWELL_S = 10.0
"""The time for the rounds that are left when the peer ends."""

_log = logging.getLogger("p2pd.hook")


class RoundNews(msgspec.Struct, frozen=True, kw_only=True):
    """The line on the command's standard input."""

    schema: int = 1
    swarm: str
    task: str
    peer_id: str
    name: str
    rounds: int
    """After how many the swarm is complete; 0: never."""
    round: int
    started_at: float
    """Unix seconds."""
    seconds: float | None
    loss: float | None
    """Of the averaged model on the test set, as are the metrics."""
    accuracy: float | None
    """The metric of that name, if the task has one."""
    metrics: list[MetricValue]
    """All that the task measures; the leading one first."""
    evaluated_by: str
    """Id of the peer that says so, where it was another's turn; empty: this peer measured it, or
    nobody did."""
    updates: int
    losses: dict[str, float]
    """Mean training loss by peer id, as each peer says."""


class RoundHook:
    """Tells one command of a peer's rounds.

    Example (daemon/peer_process.py)::

        hook = RoundHook(options.on_round) if options.on_round else None
        watching.append(tasks.create_task(hook.run(peer)))
        await hook.say_farewell(peer)
    """

    def __init__(self, command: str, *, longest_s: float = LONGEST_S) -> None:
        """``command``: for /bin/sh."""
        self._command = command
        self._longest_s = longest_s
        self._told = 0

    async def run(self, shown: Shown) -> None:
        """Tell of each round from now on, until cancelled."""
        self._told = shown.status().round
        while True:
            await self.tell_rest(shown)
            await asyncio.sleep(LOOK_S)

    async def tell_rest(self, shown: Shown) -> None:
        """Tell of the rounds that it was not told of yet, once it is known how good they are."""
        await self._tell_until(shown, lambda record: record.is_evaluating)

    async def _tell_until(self, shown: Shown, is_end: Callable[[RoundRecord], bool]) -> None:
        self._told = min(self._told, shown.status().round)
        history: History = shown.history(self._told)
        for record in itertools.takewhile(lambda one: not is_end(one), history.rounds):
            self._told = record.round
            await self._tell(shown.status(), record)

    async def say_farewell(self, shown: Shown) -> None:
        """The peer ends: tell of the last rounds, if that is soon done."""
        with contextlib.suppress(TimeoutError):  # said by the bound, and nothing is lost by it
            async with asyncio.timeout(FAREWELL_S):
                await self._tell_until(shown, lambda record: False)

    async def _tell(self, status: Status, record: RoundRecord) -> None:
        news = RoundNews(
            swarm=status.swarm,
            task=status.task,
            peer_id=status.peer_id,
            name=status.name,
            rounds=status.rounds,
            round=record.round,
            started_at=record.started_at,
            seconds=record.seconds,
            loss=record.loss,
            accuracy=record.accuracy,
            metrics=record.metrics,
            evaluated_by=record.evaluated_by,
            updates=record.updates,
            losses=record.losses,
        )
        try:
            process = await asyncio.create_subprocess_shell(
                self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            _log.warning("--on-round: cannot be run: %s", error.strerror)
            return
        try:
            async with asyncio.timeout(self._longest_s):
                await process.communicate(msgspec.json.encode(news) + b"\n")
        except TimeoutError:
            _log.warning(
                "--on-round: not done with round %d after %.0f s, ended",
                record.round,
                self._longest_s,
            )
        else:
            if process.returncode:
                _log.warning(
                    "--on-round: exit code %d at round %d", process.returncode, record.round
                )
        finally:
            # What it left running, too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.returncode is None:
                await process.wait()
