"""Trainers that are forks of a process that has PyTorch loaded: as any other, and gone in time."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from daemon.worker import fork_server
from daemon.worker.process import WorkerDiedError
from daemon.worker.processes import WorkerProcesses
from ml.learner import Learner
from ml.round_steps import train_round
from p2pd.channel import to_frame
from p2pd.messages import Train
from protocol.errors import ConfigError, WorkerError
from tests.eventually import eventually
from tests.forked_trainers import forked_trainers
from tests.ml.conftest import MakeOpening

SPEAKING_TASK = """
import os
from pathlib import Path
from tests.ml.tiny_task import *

BATCH_SIZE = 8

def train_dataset(data_dir):
    print("in", os.getcwd(), "with", os.environ["ONLY_HERE"], flush=True)
    raise SystemExit(7)
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[psutil.Process]:
    """One that this process's workers use."""
    (tmp_path / "server").mkdir()
    with forked_trainers(tmp_path / "server") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        (process,) = (
            one
            for one in psutil.Process().children()
            if variables[fork_server.VARIABLE] in one.cmdline()
        )
        yield process


async def test_forked_trainer_trains_dies_comes_back_and_leaves_nothing(
    server: psutil.Process, make_opening: MakeOpening
) -> None:
    expected = Learner(make_opening("inside"))
    async with WorkerProcesses() as worker:
        opened = await worker.open_once(make_opening("outside"))
        assert opened.initial_root == expected.opened.initial_root
        trained = await worker.take(train_round(1, 1))
        assert trained.updates[0].root == expected.train(1).updates[0].root
        first = psutil.Process(worker.trainer.pid)
        assert first.ppid() == server.pid
        os.kill(first.pid, signal.SIGKILL)
        assert await worker.trainer.wait_died() == "trainer died: signal 9"
        with pytest.raises(WorkerDiedError):
            await worker.trainer.ask(Train(2, ""))
        await worker.trainer.restart()
        second = psutil.Process(worker.trainer.pid)
        await eventually(lambda: not first.is_running())
    await eventually(lambda: not second.is_running() and not server.children())


async def test_forked_trainer_sees_its_daemons_environment_and_directory_and_is_heard(
    server: psutil.Process,
    make_opening: MakeOpening,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("ONLY_HERE", "a value")
    task = tmp_path / "speaking_task.py"
    task.write_text(SPEAKING_TASK)
    caplog.set_level("INFO")
    async with WorkerProcesses() as worker:
        with contextlib.suppress(ConfigError, WorkerError):
            await worker.open_once(make_opening(task=str(task)))
        await eventually(lambda: f"in {tmp_path / 'here'} with a value" in caplog.text)


async def test_trainers_end_with_their_server_and_without_one_it_is_said(
    server: psutil.Process, make_opening: MakeOpening
) -> None:
    async with WorkerProcesses() as worker:
        await worker.open_once(make_opening())
        trainer = psutil.Process(worker.trainer.pid)
        server.kill()
        assert await worker.trainer.wait_died() == "trainer died: signal 9"
        await eventually(lambda: not trainer.is_running())
        with pytest.raises(
            WorkerError, match=f"no fork server answers at .*{fork_server.VARIABLE}"
        ):
            await worker.trainer.restart()


async def test_what_is_no_request_harms_nobody(
    server: psutil.Process, make_opening: MakeOpening
) -> None:
    address = os.environ[fork_server.VARIABLE]
    for request in (b"", b"\xff" * 8, to_frame(0, b"no JSON"), to_frame(0, b"[]")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
            stranger.connect(address)
            stranger.sendall(request)
            stranger.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):  # it did not read all
                assert stranger.recv(8) == b""
    async with WorkerProcesses() as worker:
        await worker.open_once(make_opening())
        assert psutil.Process(worker.trainer.pid).ppid() == server.pid
