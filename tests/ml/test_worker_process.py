"""The worker as a real process over a real socket pair."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil
import pytest
import pytest_asyncio
import uvloop

from daemon.net.traffic import TrafficCounter, TrafficMeter
from daemon.worker.process import WorkerDiedError
from daemon.worker.processes import WorkerProcesses
from daemon.worker.program import TRAINER, Message
from daemon.worker.worker import TaskWorker
from ml.averaging.environment import NEEDED_VARIABLES
from ml.averaging.messages import Apply, CheckUpdate, Contribution, Export, LoadState
from ml.learner import Learner
from ml.opening import Trained
from ml.round_steps import advance, evaluate, train_round
from p2pd.messages import Finish, Progress, Train
from protocol.errors import ConfigError, VerificationError, WorkerError
from tests.ml.averaging.test_event_files import read_scalars
from tests.ml.conftest import TINY_TASK, MakeOpening

ROOT = Path(__file__).parents[2]
MAX_AVERAGER_BYTES = 90_000_000
SET_VARIABLES = {
    "PYTHONUNBUFFERED",
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
}
ENDLESS: dict[str, Any] = {"local_unit": "seconds", "local_amount": 3600.0}

in_shared_loop = pytest.mark.asyncio(loop_scope="module")


class Watched(NamedTuple):
    """A worker, an event that is set by progress, and all that was reported."""

    worker: WorkerProcesses
    progress: asyncio.Event
    reports: list[Progress]


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    progress = asyncio.Event()
    reports: list[Progress] = []

    class Noting:
        def said(self, message: Message) -> None:
            if isinstance(message, Progress):
                reports.append(message)
                progress.set()

    async with WorkerProcesses(TRAINER, Noting()) as worker:
        yield Watched(worker, progress, reports)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Watched]:
    """One process for the tests that do not end it, since a start takes seconds.

    A task of its own holds it: a context has to be left by the task that entered it.
    """
    ready: asyncio.Future[Watched] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def hold() -> None:
        async with watched() as one:
            ready.set_result(one)
            await done.wait()

    holder = asyncio.create_task(hold())
    yield await ready
    done.set()
    await holder


@contextlib.asynccontextmanager
async def training(watched: Watched, round_number: int = 1) -> AsyncIterator[asyncio.Task[Trained]]:
    """A training that has done its first step."""
    watched.progress.clear()
    task = asyncio.create_task(watched.worker.take(train_round(round_number, 1)))
    try:
        await watched.progress.wait()
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def own(trained: Trained) -> tuple[Contribution, ...]:
    return (Contribution("me", trained.updates[0].path, trained.sample_count),)


@in_shared_loop
async def test_rounds_over_the_wire_are_those_of_the_learner(
    shared: Watched, make_opening: MakeOpening, tmp_path: Path
) -> None:
    worker, _, reports = shared
    reports.clear()
    learner = Learner(make_opening("inside"))
    opening = await worker.open_once(make_opening("outside"))
    assert opening.initial_root == learner.opened.initial_root
    assert opening.suggestion.local_amount == 20
    for round_number in (1, 2):
        trained = await worker.take(train_round(round_number, 1))
        await worker.averager.ask(CheckUpdate(trained.round, trained.updates[0].path))
        state = await worker.take(advance(Apply(round_number, own(trained))))
        expected = learner.train(round_number)
        assert trained.updates[0].root == expected.updates[0].root
        applied = learner.apply(round_number, own(expected))
        assert state.state.root == applied.state.root
        taken = LoadState(round_number, state.state.path, state.state.root)
        again = await worker.take(evaluate(await worker.take(advance(taken))))
        assert (again.leading, again.state.root) == (applied.leading, state.state.root)
    exported = await worker.averager.ask(Export(str(tmp_path / "model.safetensors")))
    assert exported.size_bytes == (tmp_path / "model.safetensors").stat().st_size
    assert {report.round for report in reports} == {1, 2}
    assert reports[0].samples_per_second > 0


@in_shared_loop
async def test_requests_are_answered_while_it_trains(
    shared: Watched, make_opening: MakeOpening, tmp_path: Path
) -> None:
    worker = shared.worker
    (tmp_path / "bad").write_bytes(b"\x80\x04")
    await worker.open_once(make_opening(**ENDLESS))
    async with training(shared) as task:
        with pytest.raises(VerificationError, match="pickle"):
            await worker.averager.ask(CheckUpdate(1, str(tmp_path / "bad")))
        assert (await worker.averager.ask(Export(str(tmp_path / "model.safetensors")))).round == 0
        assert not task.done()
        await worker.trainer.ask(Finish())
        trained = await task
    assert trained.steps >= 1
    assert (await worker.take(advance(Apply(1, own(trained))))).round == 1


@in_shared_loop
async def test_finish_that_comes_right_after_the_train_is_heard(
    shared: Watched, make_opening: MakeOpening
) -> None:
    opened = await shared.worker.open_once(make_opening(**ENDLESS))
    train = Train(1, opened.state.root.hex())
    task = asyncio.create_task(shared.worker.trainer.ask(train))
    await asyncio.sleep(0)
    shared.worker.trainer.say(Finish())
    assert (await task).steps >= 1


@in_shared_loop
async def test_cancelled_training_ends_and_leaves_nothing(
    shared: Watched, make_opening: MakeOpening, tmp_path: Path
) -> None:
    await shared.worker.open_once(make_opening(**ENDLESS))
    async with training(shared) as task:
        task.cancel()
        await asyncio.wait([task])
    async with training(shared) as task:
        assert list((tmp_path / "peer" / "spool").iterdir()) == []
        shared.worker.trainer.say(Finish())
        assert (await task).steps >= 1


@in_shared_loop
async def test_new_state_ends_the_training_on_the_old_one(
    shared: Watched, make_opening: MakeOpening
) -> None:
    await shared.worker.open_once(make_opening(**ENDLESS))
    async with training(shared) as task:
        state = await shared.worker.take(advance(Apply(1, ())))
        assert (await shared.worker.take(evaluate(state))).round == 1
        with pytest.raises(WorkerError, match="the training was abandoned"):
            await task
    async with training(shared, 2) as task:
        assert not task.done()


@in_shared_loop
async def test_worker_ignores_ctrl_c_and_is_nicer_than_the_daemon(
    shared: Watched, make_opening: MakeOpening
) -> None:
    for child in shared.worker.both:
        os.kill(child.pid, signal.SIGINT)
    assert (await shared.worker.open_once(make_opening())).round == 0
    here = os.getpriority(os.PRIO_PROCESS, 0)
    for child in shared.worker.both:
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == min(here + 5, 19)


@in_shared_loop
async def test_config_errors_come_through_and_the_worker_lives(
    shared: Watched, make_opening: MakeOpening, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = tmp_path / "loud.py"
    task.write_text('print("\\x1b[31mred")\n' + TINY_TASK.read_text().replace("def loss", "def x"))
    with caplog.at_level(logging.INFO, logger="p2pd.worker"):
        with pytest.raises(ConfigError, match=r"loud\.py: it has no function loss\(\)"):
            await shared.worker.open_once(make_opening(task=str(task)))
        with pytest.raises(WorkerError, match="no task is open"):
            await shared.worker.take(train_round(1, 1))
        with pytest.raises(ConfigError, match="aggregation 'mode'"):
            await shared.worker.open_once(make_opening(aggregation="mode"))
        assert (await shared.worker.open_once(make_opening())).round == 0
    assert "\\x1b[31mred" in caplog.text


@in_shared_loop
async def test_what_fails_again_in_the_same_way_is_logged_in_one_line(
    shared: Watched, make_opening: MakeOpening, caplog: pytest.LogCaptureFixture
) -> None:
    await shared.worker.open_once(make_opening())
    with caplog.at_level(logging.INFO, logger="p2pd.worker"):
        for _ in range(3):
            with pytest.raises(WorkerError, match="ValueError: embedded null byte"):
                await shared.worker.averager.ask(CheckUpdate(1, "no\0file"))
        async with asyncio.timeout(90):
            again = "failed as before: ValueError: embedded null byte"
            while caplog.text.count(again) < 2:  # noqa: ASYNC110 — the log has no event.
                await asyncio.sleep(0.01)
    assert caplog.text.count("Traceback") == 1


@pytest.mark.usefixtures("trainers_at_once")
async def test_worker_that_dies_while_it_loads_the_task_is_started_again(
    make_opening: MakeOpening, tmp_path: Path
) -> None:
    task = tmp_path / "dies_once.py"
    task.write_text(
        "import os, pathlib, signal\n"
        "been_here = pathlib.Path(__file__).with_name('been here')\n"
        "if not been_here.exists():\n"
        "    been_here.touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n" + TINY_TASK.read_text()
    )
    async with WorkerProcesses() as process:
        worker = TaskWorker(
            process,
            make_opening(task=str(task)),
            on_change=lambda: None,
            traffic=TrafficMeter(TrafficCounter()),
        )
        assert (await worker.open()).round == 0
        assert worker.is_ready


@pytest.mark.usefixtures("trainers_at_once")
async def test_traffic_of_the_last_round_is_in_the_event_file_when_the_worker_ends(
    make_opening: MakeOpening, tmp_path: Path
) -> None:
    opening = replace(make_opening(), event_dir=str(tmp_path / "events"))
    async with WorkerProcesses() as process:
        worker = TaskWorker(
            process, opening, on_change=lambda: None, traffic=TrafficMeter(TrafficCounter())
        )
        await worker.open()
        await worker.advance(Apply(1, own(await worker.train(1))))
    assert read_scalars(tmp_path / "events")["round/bytes_sent"] == {1: 0}


@pytest.mark.usefixtures("trainers_at_once")
async def test_killed_worker_fails_what_waits_and_goes_on_from_its_checkpoint(
    make_opening: MakeOpening,
) -> None:
    opening = make_opening(**ENDLESS)
    async with watched() as one:
        worker = one.worker
        await worker.open_once(opening)
        state = await worker.take(advance(Apply(1, ())))
        async with training(one, 2) as task:
            for child in worker.both:
                os.kill(child.pid, signal.SIGKILL)
            with pytest.raises(WorkerDiedError, match="trainer died: signal 9"):
                await task
        assert await worker.averager.wait_died() == "averager died: signal 9"
        with pytest.raises(WorkerDiedError, match="signal 9"):
            await worker.averager.ask(Export("/nowhere"))
        worker.trainer.say(Finish())  # to nobody, which does no harm
        for child in worker.both:
            await child.restart()
        reopened = await worker.open_once(opening)
        assert (reopened.round, reopened.state.root) == (1, state.state.root)
        async with training(one, 2) as task:
            assert not task.done()


@pytest.mark.usefixtures("trainers_at_once")
async def test_worker_that_trains_ends_when_told_to(make_opening: MakeOpening) -> None:
    async with watched() as one:
        await one.worker.open_once(make_opening(**ENDLESS))
        async with training(one) as task:
            await one.worker.trainer.shutdown()
            with pytest.raises(WorkerDiedError, match="exit code 0"):
                await task
            assert not is_running(one.worker.trainer.pid)


TRAIN_ENDLESSLY = """
import asyncio, sys
import msgspec
from daemon.worker.processes import WorkerProcesses
from daemon.worker.program import TRAINER
from ml.opening import Opening
from ml.round_steps import train_round
from p2pd.messages import Progress

async def main():
    opening = msgspec.json.decode(sys.argv[1], type=Opening)

    class Telling:
        def said(self, message):
            if isinstance(message, Progress):
                print(*(child.pid for child in worker.both), flush=True)

    async with WorkerProcesses(TRAINER, Telling()) as worker:
        await worker.open_once(opening)
        await worker.take(train_round(1, 1))

asyncio.run(main())
"""


def test_killed_daemon_leaves_no_worker_behind(make_opening: MakeOpening) -> None:
    opening = msgspec.json.encode(make_opening(**ENDLESS)).decode()
    daemon = subprocess.Popen(
        [sys.executable, "-c", TRAIN_ENDLESSLY, opening],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert daemon.stdout is not None
    pids = [int(pid) for pid in daemon.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(is_running, pids))
    daemon.kill()
    # The worker holds the other end of its output; this ends when it is gone.
    daemon.communicate(timeout=150)
    deadline = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_running, pids))


async def test_stopped_worker_is_killed_with_its_context(make_opening: MakeOpening) -> None:
    async with WorkerProcesses() as worker:
        pids = [child.pid for child in worker.both]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
    assert not any(map(is_running, pids))


@pytest.mark.usefixtures("trainers_at_once")
async def test_training_that_hangs_is_killed(make_opening: MakeOpening, tmp_path: Path) -> None:
    task = tmp_path / "hangs.py"
    # Not in the step that is tried while the task is opened.
    hang = "    steps.append(torch.is_grad_enabled())\n    if sum(steps) > 1: time.sleep(3600)\n"
    head = "import time\n\nimport torch\n\nsteps = []\n"
    source = TINY_TASK.read_text().replace("import torch\n", head, 1)
    loss = "def loss(outputs, targets):\n"
    task.write_text(source.replace(loss, loss + hang))
    async with WorkerProcesses(kill_after_s=1) as worker:
        await worker.open_once(make_opening(task=str(task)))
        with pytest.raises(WorkerDiedError, match="the trainer showed no sign of life for 1 s"):
            await worker.take(train_round(1, 1))
        assert await worker.trainer.wait_died() == "the trainer showed no sign of life for 1 s"


def test_it_works_under_uvloop_and_lets_errors_through_as_they_are() -> None:
    async def scenario(pids: list[int]) -> None:
        async with WorkerProcesses() as worker:
            pids.extend(child.pid for child in worker.both)
            await worker.take(train_round(1, 1))

    pids: list[int] = []
    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        pytest.raises(WorkerError, match="no task is open"),
    ):
        runner.run(scenario(pids))
    assert pids
    assert not any(map(is_running, pids))


WITH_HELPERS = """
import multiprocessing, os, time

for method in ("fork", "spawn"):
    helper = multiprocessing.get_context(method).Process(target=time.sleep, args=(3600,))
    helper.start()
    with open(os.environ["HELPERS"], "a") as pids:
        print(helper.pid, file=pids)
"""


@pytest.fixture
def task_with_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A task that starts processes of its own, and where it writes their numbers."""
    task, helpers = tmp_path / "helped.py", tmp_path / "helpers"
    task.write_text(WITH_HELPERS + TINY_TASK.read_text())
    monkeypatch.setenv("HELPERS", str(helpers))
    return task, helpers


async def test_trainers_death_is_noticed_though_its_helpers_hold_its_streams_and_they_end_too(
    make_opening: MakeOpening, task_with_helpers: tuple[Path, Path]
) -> None:
    task, helpers = task_with_helpers
    async with WorkerProcesses() as worker:
        await worker.open_once(make_opening(task=str(task)))
        pids = [int(line) for line in helpers.read_text().split()]
        assert len(pids) == 2
        assert all(map(is_running, pids))
        os.kill(worker.trainer.pid, signal.SIGKILL)
        async with asyncio.timeout(90):
            assert await worker.trainer.wait_died() == "trainer died: signal 9"
        assert not any(map(is_running, pids))


def test_killed_daemon_leaves_no_helper_behind(
    make_opening: MakeOpening, task_with_helpers: tuple[Path, Path]
) -> None:
    task, helpers = task_with_helpers
    opening = msgspec.json.encode(make_opening(task=str(task), **ENDLESS)).decode()
    with subprocess.Popen(
        [sys.executable, "-c", TRAIN_ENDLESSLY, opening],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as daemon:
        assert daemon.stdout is not None
        pids = [int(pid) for pid in daemon.stdout.readline().split()]
        pids += [int(line) for line in helpers.read_text().split()]
        assert len(pids) == 4
        daemon.kill()
    deadline = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_running, pids))


async def test_averager_is_small_without_torch_and_sandboxed(
    make_opening: MakeOpening, tmp_path: Path
) -> None:
    task = tmp_path / "larger.py"
    layers = "nn.Linear(8, 16), nn.Linear(16, 4096), nn.Linear(4096, 4096), nn.Linear(4096, 16)"
    task.write_text(TINY_TASK.read_text().replace("nn.Linear(8, 16)", layers))
    settings = {"compression": "int8", "outer_momentum": 0.5, "local_amount": 1}
    async with WorkerProcesses(own_files=[tmp_path]) as worker:
        opened = await worker.open_once(make_opening(task=str(task), **settings))
        assert opened.parameter_count > 16_000_000
        trained = await worker.take(train_round(1, 1))
        await worker.averager.ask(CheckUpdate(trained.round, trained.updates[0].path))
        await worker.take(advance(Apply(1, own(trained))))
        averager = psutil.Process(worker.averager.pid)
        assert averager.memory_full_info().pss < MAX_AVERAGER_BYTES
        assert "torch" not in " ".join(one.path for one in averager.memory_maps())
        assert set(averager.environ()) <= {*NEEDED_VARIABLES, *SET_VARIABLES}
        assert opened.sandbox.startswith("no new privileges")


@pytest.mark.usefixtures("trainers_at_once")
async def test_averager_that_dies_while_the_trainer_trains_gets_what_that_comes_to(
    make_opening: MakeOpening,
) -> None:
    """And the other way round: one killed in mid-round changes no bit of the update."""
    settings = {"local_unit": "steps", "local_amount": 100}
    roots = set()
    for index, killed in enumerate(("", "averager", "trainer", "both")):
        async with watched() as one:
            worker = TaskWorker(
                one.worker,
                make_opening(f"{index}", **settings),
                on_change=lambda: None,
                traffic=TrafficMeter(TrafficCounter()),
            )
            await worker.open()
            alive = asyncio.create_task(worker.keep_alive(lambda opened: None))
            training = asyncio.create_task(worker.train(1))
            await one.progress.wait()
            trainer_pid = one.worker.trainer.pid
            for child, name in zip(one.worker.both, ("averager", "trainer"), strict=True):
                if killed in (name, "both"):
                    os.kill(child.pid, signal.SIGKILL)
            trained = await training
            assert (one.worker.trainer.pid == trainer_pid) == (killed in ("", "averager"))
            roots.add(trained.updates[0].root)
            state = await worker.advance(Apply(1, own(trained)))
            roots.add(state.state.root)
            alive.cancel()
            await asyncio.wait([alive])
    assert len(roots) == 2
