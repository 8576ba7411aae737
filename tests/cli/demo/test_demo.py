"""``p2pd demo``: the whole swarm with real processes, and how it ends when it does not end well."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.process_table import processes_of

WAIT_S = 110.0
TINY_TASK = Path(__file__).parents[2] / "ml" / "tiny_task.py"
OWN_METRIC = """
METRICS = {"errors": "lower, .3f"}
ROUND = {**ROUND, "evaluate": "none"}  # a demo, which compares, has all evaluate

def metric(outputs, targets):
    return (outputs.argmax(1) != targets).float().mean()
"""


@contextlib.contextmanager
def running_demo(
    environ: Mapping[str, str], *options: str
) -> Generator["subprocess.Popen[str]", None, None]:
    """A demo of more rounds than anybody waits for, and its output; killed in the end."""
    command = [sys.executable, "-W", "error", "-m", "daemon.cli", "demo", "--rounds", "100000"]
    with subprocess.Popen(
        [*command, *options], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        try:
            yield demo
        finally:
            demo.kill()


def read_until(demo: "subprocess.Popen[str]", wanted: str) -> None:
    """Read what the demo prints up to the line that has ``wanted`` in it."""
    assert demo.stdout is not None
    seen: list[str] = []
    while not seen or wanted not in seen[-1]:
        line = demo.stdout.readline()
        assert line, f"{seen}, then: {demo.communicate()[1]}"
        seen.append(line)


def assert_all_ended(scratch: Path) -> None:
    """The demo's processes are gone, or at least told to end and about to."""
    deadline = time.monotonic() + 90
    while processes_of(scratch) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(scratch) == {}


@pytest.mark.parametrize(
    ("number", "options"), [(signal.SIGINT, ()), (signal.SIGTERM, ("--task", str(TINY_TASK)))]
)
def test_interrupted_demo_leaves_nothing_behind(
    p2pd: CommandLine, tmp_path: Path, number: signal.Signals, options: tuple[str, ...]
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with running_demo({**p2pd.environ, "TMPDIR": str(scratch)}, *options) as demo:
        read_until(demo, "starting 3 peers")
        assert len(processes_of(scratch)) >= 2
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=WAIT_S)
    assert demo.returncode == 128 + number
    assert errors == ""
    assert list(scratch.iterdir()) == []
    assert_all_ended(scratch)


def test_processes_of_a_killed_demo_of_an_own_task_end_by_themselves(
    p2pd: CommandLine, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    task = tmp_path / "own.py"
    task.write_text(TINY_TASK.read_text() + OWN_METRIC)
    options = ("--task", str(task))
    with running_demo({**p2pd.environ, "TMPDIR": str(scratch)}, *options) as demo:
        read_until(demo, "train together")
        read_until(demo, ": round 1 of 100000 complete, errors 0.")
        assert len(processes_of(scratch)) >= 5
        demo.kill()
    assert_all_ended(scratch)


def test_a_peer_that_dies_ends_the_demo_which_says_so(p2pd: CommandLine, tmp_path: Path) -> None:
    keep = tmp_path / "kept"
    with running_demo(p2pd.environ, "--keep", str(keep)) as demo:
        read_until(demo, "train together")
        (peer,) = [
            number
            for number, command in processes_of(keep).items()
            if "daemon.cli join" in command and "peer-1" in command
        ]
        os.kill(peer, signal.SIGKILL)
        _, errors = demo.communicate(timeout=WAIT_S)
    assert demo.returncode == 1
    assert "p2pd: peer-1 was killed by SIGKILL" in errors
    assert (keep / "peer-1.log").exists()
    assert_all_ended(keep)


def test_what_cannot_work_is_said_before_peers_start(p2pd: CommandLine, tmp_path: Path) -> None:
    unknown = p2pd("demo", "--task", "nonsense")
    assert unknown.returncode == 78
    assert "no built-in task 'nonsense'" in unknown.stderr
    nowhere = p2pd("demo", "--data-dir", tmp_path / "nowhere")
    assert nowhere.returncode == 78
    assert "task digits needs none: leave out --data-dir" in nowhere.stderr
    for told in (unknown, nowhere):
        assert "starting a rendezvous" not in told.stdout + told.stderr
    (tmp_path / "file").write_text("")
    taken = p2pd("demo", "--keep", tmp_path)
    assert taken.returncode == 78
    assert "is not empty" in taken.stderr
    assert p2pd("demo", "--peers", "0").returncode == 2
