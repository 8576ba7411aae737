"""``p2pd task check`` takes its rounds where a peer will take them."""

import re
from pathlib import Path

import pytest

from daemon.cli.task import describe
from daemon.worker.rehearsal import rehearse
from protocol.errors import ConfigError
from tests.ml.conftest import TINY_TASK

pytestmark = pytest.mark.usefixtures("trainers_at_once")

SQLITE = """
import sqlite3

POINTS = [(i / 50, i % 3) for i in range(96)]
METRICS = {"right": "higher, .0%"}


class Rows:
    \"\"\"SQLite gives its rows to the thread alone that opened it.\"\"\"

    def __init__(self):
        self.rows = sqlite3.connect(":memory:")
        self.rows.execute("create table points (x real, y integer)")
        self.rows.executemany("insert into points values (?, ?)", POINTS)

    def __len__(self):
        return self.rows.execute("select count(*) from points").fetchone()[0]

    def __getitem__(self, index):
        x, y = self.rows.execute("select x, y from points where rowid = ?", (index + 1,)).fetchone()
        return torch.full((8,), x), y


def train_dataset(data_dir):
    return Rows()


def test_dataset(data_dir):
    return Rows()


def evaluate(model, batches):
    found = [(model(inputs).argmax(1) == labels).float().mean() for inputs, labels in batches]
    return sum(found) / len(found)
"""


@pytest.mark.timeout(600)
async def test_two_rounds_are_taken_in_a_peers_processes_and_cost_is_told(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.py"
    path.write_text(TINY_TASK.read_text() + SQLITE)
    found = await rehearse(str(path), builtin=False, data_dir="")
    assert (found.device, found.device_problem) == ("cpu", "")
    assert found.steps > 0
    assert min(found.samples_per_second, found.training_s, found.averaging_s) > 0
    assert 227 * 4 < found.update_bytes < 227 * 4 + 10_000
    assert found.trainer_bytes is not None
    assert found.averager_bytes is not None
    assert found.trainer_bytes > found.averager_bytes > 10_000_000
    assert [one.name for one in found.metrics] == ["right"]
    text = describe(found)
    assert found.loss is None, "the task says none"
    assert re.search(r"then +right \d+ %$", text)
    path.write_text(path.read_text() + "\ndef optimizer(parameters):\n    return 1 / 0\n")
    with pytest.raises(ConfigError, match=r"optimizer\(\) failed"):
        await rehearse(str(path), builtin=False, data_dir="")
