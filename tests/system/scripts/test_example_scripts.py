"""The examples of scripts run as they are, offline, as the trainer of a daemon: from the base that
it gives to parameters that it gets, and to the end of the swarm. Those of other trainers are in
test_own_frameworks.py."""

import csv
import difflib
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pd.messages import Opened, Trained
from p2pd.script.place import TRAINER_VARIABLE
from p2pd.shared_tensors import NO_ROOT, SharedLayout, SharedTensors
from tests.forked_scripts import forked_scripts
from tests.script.daemon_side import DaemonSide, root_of

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples" / "scripts"
START_S = 200.0
ROUNDS = 2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "trainer.sock"))
        listener.listen()
        listener.settimeout(START_S)
        yield listener


def copy(layout: SharedLayout, source: SharedTensors, to: SharedTensors, number: int) -> None:
    """Have the base be what a round came to: nobody else takes part."""
    with to.writing(layout, number, root_of(number)):
        for place in layout.places.values():
            data = bytearray(place.size_bytes)
            source.read(place.offset, memoryview(data))
            to.write(place.offset, memoryview(data))


def train_rounds(side: DaemonSide) -> tuple[Opened, list[Trained]]:
    """Be the daemon of a swarm of :data:`ROUNDS` rounds and one peer."""
    side.settings |= {"local_unit": "steps", "local_amount": 3.0}
    side.open()
    opened = side.answer(1)
    assert isinstance(opened, Opened)
    layout = SharedLayout([(name, dtype, shape) for name, dtype, shape, _ in opened.tensors])
    done: list[Trained] = []
    for number in range(1, ROUNDS + 1):
        with side.local.reading(number - 1, root_of(number - 2) if number > 1 else NO_ROOT):
            copy(layout, side.local, side.base, number - 1)
        trained = side.answer(side.ask_training(number))
        assert isinstance(trained, Trained)
        done.append(trained)
    with side.local.reading(ROUNDS, root_of(ROUNDS - 1)):
        copy(layout, side.local, side.base, ROUNDS)
    side.stand(ROUNDS, complete=True)
    return opened, done


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """By which examples of one process are run: loading PyTorch takes longer than all else here."""
    modules = ["torch._dynamo", "sklearn.datasets"]
    if importlib.util.find_spec("accelerate"):
        modules.append("accelerate")
    with forked_scripts(tmp_path_factory.mktemp("python"), modules) as command:
        yield command


def run_example(
    listener: socket.socket, python: tuple[str, ...], name: str, *arguments: str
) -> tuple[Opened, list[Trained]]:
    """What an example came to, once it has ended well."""
    path = listener.getsockname()
    environ = {
        **os.environ,
        TRAINER_VARIABLE: path,
        "PYTHONPATH": str(ROOT),
    }
    process = subprocess.Popen(
        [*python, str(EXAMPLES / name), *arguments],
        env=environ,
        cwd=Path(path).parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        connection, _ = listener.accept()
        side = DaemonSide(Path(path).parent, connection)
        try:
            result = train_rounds(side)
            output, _ = process.communicate(timeout=START_S)
        finally:
            side.close()
        assert process.returncode == 0, output
    finally:
        process.kill()
        print(process.communicate()[0])
    assert all(trained.steps == 3 for trained in result[1])
    return result


def test_loop_becomes_a_peer_by_six_lines(listener: socket.socket, python: tuple[str, ...]) -> None:
    before, after = ((EXAMPLES / f"loop_{when}.py").read_text() for when in ("before", "after"))
    lines = [
        line
        for line in difflib.ndiff(before.splitlines(), after.splitlines())
        if line[:2] in ("+ ", "- ") and line[2:].strip() and '"""' not in line
    ]
    assert len(lines) <= 6, lines
    opened, trained = run_example(listener, python, "loop_after.py", "-")
    assert len(opened.tensors) == 4
    assert trained[0].sample_count == 96


def test_each_peer_trains_on_its_own_file(
    listener: socket.socket, python: tuple[str, ...], tmp_path: Path
) -> None:
    with (tmp_path / "own.csv").open("w", newline="") as file:
        # One target for all, so that the loss falls whichever rows a round happens to draw.
        rows = [[i / 10, i % 3, 20] for i in range(100)]
        csv.writer(file).writerows([["a", "b", "target"], *rows])
    opened, trained = run_example(listener, python, "csv_peers.py", "-", "own.csv")
    assert opened.sample_count == 100
    assert trained[0].loss > trained[1].loss


def test_processes_of_a_torchrun_train_as_one(listener: socket.socket) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    _, trained = run_example(listener, (sys.executable, *torchrun), "ddp.py")
    assert trained[0].sample_count == 2 * 3 * 32, "of both"


def test_loop_with_accelerate_is_trained(listener: socket.socket, python: tuple[str, ...]) -> None:
    pytest.importorskip("accelerate", reason="needs accelerate")
    run_example(listener, python, "accelerate_loop.py", "-")
