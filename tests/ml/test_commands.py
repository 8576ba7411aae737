"""The commands that run in a child process: trying a task, and training alone."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ml.check_task import check_task
from ml.task.load import load_task
from protocol.errors import ConfigError
from tests.ml.conftest import TINY_TASK

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.fixture(scope="module")
def shown() -> subprocess.CompletedProcess[str]:
    """What a person sees who has a task checked."""
    return run("ml.check_task", str(TINY_TASK))


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The document about the same task, which prints something too."""
    task = tmp_path_factory.mktemp("document") / "talks.py"
    task.write_text("print('hello')\n" + TINY_TASK.read_text())
    return run("ml.check_task", str(task), "--json")


def test_task_check_prints_the_manifest(shown: subprocess.CompletedProcess[str]) -> None:
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "0.weight" in shown.stdout
    assert "9 tensors, 227 parameters" in shown.stdout


def test_task_check_says_what_a_round_costs(
    shown: subprocess.CompletedProcess[str], document: subprocess.CompletedProcess[str]
) -> None:
    cost = json.loads(document.stdout)["cost"]
    task = load_task(str(TINY_TASK), builtin=False)
    samples = len(task.train_dataset(Path()))
    assert cost["train_samples"] == samples
    assert cost["test_samples"] == len(task.test_dataset(Path()))
    assert cost["update_bytes"] >= 4 * 227
    assert cost["samples_per_second"] > 0
    assert 0 < cost["loss"] < 10
    assert (task.suggestion.local_unit, cost["steps_a_round"]) == (
        "steps",
        task.suggestion.local_amount,
    )
    lines = shown.stdout.split("\n\n")[-1].splitlines()
    assert [line.split()[0] for line in lines] == ["data", "speed", "loss", "a", "traffic"]
    assert max(map(len, lines)) <= 80


def test_task_check_names_what_is_wrong(tmp_path: Path) -> None:
    task = tmp_path / "wrong.py"
    task.write_text(TINY_TASK.read_text().replace("nn.Linear(8, 16)", "nn.Linear(7, 16)"))
    done = run("ml.check_task", str(task), "--json")
    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr.startswith("task wrong.py: the model's forward failed: RuntimeError")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("nn.Linear(8, 16)", "nn.LazyLinear(16)", "model(): 0.weight has no shape so far"),
        ("nn.Linear(8, 16)", "nn.Linear(8, 16, device=torch.seed() and 'cpu')", "another 0."),
        ("return functional.cross_entropy(outputs, targets)", "return outputs.sum() / 0", "very f"),
        (".float().mean()", ".float().mean() / 0", "metric() is "),
        (
            "functional.cross_entropy(outputs, targets)",
            "functional.mse_loss(outputs[:, :1], targets.float())",
            "loss() failed: UserWarning: Using a target size (torch.Size([16])) that is different",
        ),
        (
            "torch.optim.SGD(parameters, lr=0.1, momentum=0.9)",
            "type('Broken', (torch.optim.SGD,), {'step': lambda self: 1 / 0})(parameters)",
            "optimizer()'s step() failed: ZeroDivisionError",
        ),
        (
            "def train_dataset(data_dir):\n    return _points(1, 480)",
            "ROUND['partition'] = 'labels:2'\n\n\n"
            "def train_dataset(data_dir):\n    return [(torch.ones(8), 'cat')]",
            "train_dataset's targets failed: ValueError",
        ),
    ],
    ids=["lazy", "random", "not finite", "metric", "broadcast", "step", "labels"],
)
def test_task_check_finds_what_would_show_later(
    tmp_path: Path, before: str, after: str, expected: str
) -> None:
    changed = TINY_TASK.read_text().replace(before, after)
    assert changed != TINY_TASK.read_text()
    task = tmp_path / "wrong.py"
    task.write_text(changed)
    with pytest.raises(ConfigError, match=re.escape(expected)):
        check_task(load_task(str(task), builtin=False), tmp_path)


def test_what_a_task_prints_is_none_of_the_document(
    document: subprocess.CompletedProcess[str],
) -> None:
    assert (document.returncode, document.stderr) == (0, "hello\n")
    assert json.loads(document.stdout)["parameters"] == 227


def test_training_alone_reports_each_shard(tmp_path: Path) -> None:
    settings = json.dumps({"local_unit": "steps", "local_amount": 10})
    done = run(
        "ml.alone", "--task", str(TINY_TASK), "--shard", "0/3", "--shard", "2/3",
        "--rounds", "3", "--threads", "1", "--settings", settings,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["schema"], one["shard"], one["rounds"]) for one in reports] == [
        (1, "0/3", 3),
        (1, "2/3", 3),
    ]
    assert all(one["metrics"][0]["name"] == "accuracy" for one in reports)
    assert all(one["metrics"][0]["value"] > 0.9 for one in reports)
    assert reports[0]["loss"] != reports[1]["loss"]


def test_training_alone_refuses_what_cannot_be() -> None:
    done = run("ml.alone", "--task", "digits", "--shard", "one", "--rounds", "1")
    assert done.returncode == 78
    assert done.stderr.startswith("shard 'one': write it as I/N")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["ml.averaging", "ml.training"])
def test_process_without_a_daemon_ends_at_once(module: str) -> None:
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    ours.close()
    os.close(writing)
    passed = (theirs.fileno(), reading)
    with subprocess.Popen(
        [sys.executable, "-m", module, *map(str, passed)],
        cwd=ROOT,
        pass_fds=passed,
        start_new_session=True,
    ) as process:
        theirs.close()
        os.close(reading)
        # The trainer's guard may be the first to see it.
        assert process.wait(timeout=150) in (1, -signal.SIGKILL)
