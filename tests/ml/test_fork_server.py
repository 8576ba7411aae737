"""Trainers that are forks of a process that has PyTorch loaded: as any other, and gone in time."""

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from daemon.worker import fork_server
from daemon.worker.launch import ModuleProcess, Started
from daemon.worker.process import WorkerDiedError
from daemon.worker.processes import WorkerProcesses
from daemon.worker.program import AVERAGER, AVERAGING, TRAINER, TRAINING
from ml.fork_server import DESCRIPTORS, listen, socket_path
from ml.learner import Learner
from ml.round_steps import train_round
from p2pd.channel import to_frame
from p2pd.messages import Train
from protocol.errors import WorkerError
from tests.eventually import eventually
from tests.fork_servers import SECRET, fork_servers
from tests.ml.conftest import MakeOpening

SPEAKING_TASK = """
import os
import random
from pathlib import Path

import numpy
import torch

from tests.ml.tiny_task import *

BATCH_SIZE = 8

def train_dataset(data_dir):
    print("in", os.getcwd(), "with", os.environb[b"ONLY_HERE"])
    print("drew", numpy.random.random(), random.random(), torch.rand(1).item())
    print(end="an unfinished line")
    os._exit(7)
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[psutil.Process]:
    """One that this process's workers use."""
    (tmp_path / "server").mkdir()
    with fork_servers(tmp_path / "server", [TRAINING]) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        directory = variables[fork_server.VARIABLE]
        (process,) = (one for one in psutil.Process().children() if directory in one.cmdline())
        yield process


def of_the_server(trainer: psutil.Process) -> list[str]:
    """What it still holds of what the server watches."""
    held = []
    for one in Path(f"/proc/{trainer.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            held.append(os.readlink(one))
    return [target for target in held if "pidfd" in target or "eventpoll" in target]


async def test_forked_trainer_trains_dies_comes_back_and_leaves_nothing(
    server: psutil.Process, make_opening: MakeOpening
) -> None:
    expected = Learner(make_opening("inside"))
    descriptors = server.num_fds()
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
        await eventually(lambda: not of_the_server(second))
    await eventually(lambda: not second.is_running() and not server.children())
    assert server.num_fds() == descriptors


async def test_forked_trainer_is_in_its_daemons_place_and_is_heard_to_its_end(
    server: psutil.Process,
    make_opening: MakeOpening,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("ONLY_HERE", "a=v\udce4lue")
    task = tmp_path / "speaking_task.py"
    task.write_text(SPEAKING_TASK)
    caplog.set_level("INFO")
    how = "trainer died: exit code 7 (an unfinished line)"
    async with WorkerProcesses() as worker:
        for _ in range(2):
            with pytest.raises(WorkerDiedError, match=re.escape(how)):
                await worker.open_once(make_opening(task=str(task)))
            await worker.trainer.restart()
    assert caplog.text.count(f"in {tmp_path / 'here'} with b'a=v\\xe4lue'") == 2
    drawn = re.findall(r"drew (\S+) (\S+) (\S+)", caplog.text)
    assert len(drawn) == 2
    assert len({number for one in drawn for number in one}) == 6


async def test_forked_averager_sees_and_may_do_no_more_than_one_of_its_own(
    tmp_path: Path, make_opening: MakeOpening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "of this process")
    (tmp_path / "server").mkdir()
    own, forked = tmp_path / "own", tmp_path / "forked"
    own.mkdir()
    forked.mkdir()
    async with WorkerProcesses(own_files=[own]) as worker:
        alone = await worker.open_once(make_opening("own"))
    with fork_servers(tmp_path / "server", [AVERAGING]) as variables:
        monkeypatch.setenv(fork_server.VARIABLE, variables[fork_server.VARIABLE])
        async with WorkerProcesses(own_files=[forked]) as worker:
            opened = await worker.open_once(make_opening("forked"))
            averager = psutil.Process(worker.averager.pid)
            server = averager.parent()
            assert server is not None
            assert AVERAGING.module in server.cmdline()
            environment = Path(f"/proc/{averager.pid}/environ").read_bytes()
            assert environment == Path(f"/proc/{server.pid}/environ").read_bytes()
            assert SECRET.encode() not in environment
            assert not any("torch" in one.path for one in averager.memory_maps())
            assert opened.sandbox == alone.sandbox
            trained = await worker.take(train_round(1, 1))
            assert trained.updates
        await eventually(lambda: not averager.is_running())


async def test_without_a_server_a_process_starts_by_itself_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(fork_server.VARIABLE, str(tmp_path / "misspelt"))
    started = await AVERAGER.launch(())
    assert isinstance(started, ModuleProcess)
    started.discard()
    assert f"there is no fork server at {tmp_path / 'misspelt'}" in caplog.text


async def test_trainers_end_with_their_server_and_without_one_it_is_said(
    server: psutil.Process, make_opening: MakeOpening
) -> None:
    async def start(descriptors: Sequence[int]) -> Started:
        """Start one whose server is killed before anybody looks at it."""
        started = await TRAINER.launch(descriptors)
        trainer = psutil.Process(started.pid)
        server.kill()
        await eventually(lambda: not trainer.is_running())
        return started

    async with WorkerProcesses() as worker:
        await worker.open_once(make_opening())
        trainer = psutil.Process(worker.trainer.pid)
        async with WorkerProcesses(replace(TRAINER, launch=start)) as late:
            assert await late.trainer.wait_died() == "trainer died: signal 9"
        assert await worker.trainer.wait_died() == "trainer died: signal 9"
        await eventually(lambda: not trainer.is_running())
        with pytest.raises(
            WorkerError, match=f"no fork server answers at .*{fork_server.VARIABLE}"
        ):
            await worker.trainer.restart()


async def test_a_server_that_does_not_answer_yet_is_waited_for_beside_all_else(
    server: psutil.Process, make_opening: MakeOpening
) -> None:
    server.suspend()
    asyncio.get_running_loop().call_later(0.1, server.resume)
    async with WorkerProcesses() as worker:
        await worker.open_once(make_opening())


async def test_what_is_no_request_or_too_much_harms_nobody(
    server: psutil.Process, make_opening: MakeOpening
) -> None:
    async with WorkerProcesses() as before:
        await before.open_once(make_opening("before"))
        address = socket_path(Path(os.environ[fork_server.VARIABLE]), TRAINING.module)
        for request in (
            b"",
            b"\xff" * 8,
            to_frame(0, b"\0NO=END"),
            to_frame(0, b"\0no value\0"),
            to_frame(0, b"\0=no name\0"),
            to_frame(0, b"only words\0"),
        ):
            for descriptors in ([], [0] * DESCRIPTORS):
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
                    stranger.connect(os.fspath(address))
                    socket.send_fds(stranger, [request], descriptors)
                    stranger.shutdown(socket.SHUT_WR)
                    with contextlib.suppress(ConnectionResetError):  # it did not read all
                        assert stranger.recv(8) == b""
        numbers = [int(one.name) for one in Path(f"/proc/{server.pid}/fd").iterdir()]
        limits = server.rlimit(psutil.RLIMIT_NOFILE)
        server.rlimit(psutil.RLIMIT_NOFILE, (max(numbers) + 2, limits[1]))
        with pytest.raises(WorkerError, match="starts nothing"):
            await before.trainer.restart()
        server.rlimit(psutil.RLIMIT_NOFILE, limits)
        await before.trainer.restart()
        assert psutil.Process(before.trainer.pid).ppid() == server.pid


def test_a_server_takes_the_place_of_one_that_is_gone_and_of_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # It goes to the socket's folder.
    path = tmp_path / "trainers.sock"
    with listen(path) as listener:
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(OSError, match="in use"):
            listen(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect(os.fspath(path))
            listener.accept()[0].close()
    listen(path).close()
    path.unlink()
    path.write_text("a file of the user's")
    with pytest.raises(OSError, match="in use"):
        listen(path)
    assert path.read_text() == "a file of the user's"
