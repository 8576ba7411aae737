"""A trainer that starts before it is asked for, while the daemon still loads."""

import asyncio
import os
import signal
import sys
from dataclasses import replace

import psutil
import pytest

from daemon.worker.fork_server import VARIABLE, TrainerLaunch
from daemon.worker.launch import ModuleProcess, PythonModule
from daemon.worker.processes import WorkerProcesses
from daemon.worker.program import TRAINER, TRAINING
from tests.eventually import eventually
from tests.ml.conftest import MakeOpening


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> TrainerLaunch:
    """Of processes of their own, also where tests have a fork server."""
    monkeypatch.delenv(VARIABLE, raising=False)
    return TrainerLaunch(TRAINING)


def trainers() -> list[int]:
    """This process's children that are one and have not ended."""
    return [
        child.pid
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and TRAINING.module in child.cmdline()[:4]
    ]


@pytest.mark.asyncio
async def test_trainer_that_was_begun_is_the_one_that_trains(
    launch: TrainerLaunch, make_opening: MakeOpening
) -> None:
    launch.begin()
    launch.begin()
    (pid,) = trainers()
    async with WorkerProcesses(replace(TRAINER, launch=launch)) as worker:
        await worker.open_once(make_opening())
        assert trainers() == [pid]
    assert trainers() == []


@pytest.mark.asyncio
async def test_another_one_is_started_where_the_begun_one_has_died(
    launch: TrainerLaunch, make_opening: MakeOpening
) -> None:
    launch.begin()
    (pid,) = trainers()
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: trainers() == [])
    async with WorkerProcesses(replace(TRAINER, launch=launch)) as worker:
        await worker.open_once(make_opening())
        assert pid not in trainers()


@pytest.mark.asyncio
async def test_module_that_ends_at_once_is_started_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its end is then told of as any other's."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for _ in range(20):
        started = await PythonModule("ml.training")(())
        assert await asyncio.to_thread(os.waitid, os.P_PID, started.pid, os.WEXITED | os.WNOWAIT)
        assert isinstance(started, ModuleProcess)
        started.discard()
