"""How often a peer's averager and trainer go over the model's bytes in a round, counted.

The kernel counts what a process reads and writes by calls (proc_pid_io(5)). A pass takes about
20 ms for each 100 MB, at memory's speed; a number here may fall, and never rise.
"""

from pathlib import Path

from ml.averaging.messages import Contribution, PartResult
from tests.ml.conftest import MakeOpening
from tests.ml.running import open_learner, train

PARAMETERS = 4_000_000
WIDE_TASK = f"""
import torch
from torch import nn
from torch.utils.data import TensorDataset

def model():
    return nn.Embedding({PARAMETERS} // 1000, 1000)

def train_dataset(data_dir):
    return TensorDataset(torch.arange(8), torch.zeros(8))

def test_dataset(data_dir):
    return TensorDataset(torch.arange(2), torch.zeros(2))

def optimizer(parameters):
    return torch.optim.SGD(parameters, lr=0.1)

def loss(outputs, targets):
    return outputs.mean()

def metric(outputs, targets):
    return outputs.mean()
"""


class Passes:
    """Since it was made: how many times the model's bytes were read and written, rounded."""

    def __init__(self) -> None:
        self._begun = self._counted()

    def since(self) -> tuple[int, int]:
        """Read, written; and begin anew."""
        begun, self._begun = self._begun, self._counted()
        read, written = (
            round((now - before) / (4 * PARAMETERS))
            for now, before in zip(self._begun, begun, strict=True)
        )
        return read, written

    @staticmethod
    def _counted() -> tuple[int, int]:
        lines = Path("/proc/self/io").read_text().splitlines()
        counts = dict(line.split(": ") for line in lines)
        return int(counts["rchar"]), int(counts["wchar"])


def test_passes_of_a_mesh_round_of_two(make_opening: MakeOpening, tmp_path: Path) -> None:
    task = tmp_path / "wide.py"
    task.write_text(WIDE_TASK)
    learner = open_learner(make_opening(task=str(task), local_unit="steps", local_amount=1))
    passes = Passes()
    trained = train(learner, 1)
    # The trainer reads the base and leaves what it came to; the averager reads both, and writes
    # the update, which is hashed meanwhile.
    assert passes.since() == (3, 2)
    path = trained.updates[0].path
    learner.check_update(1, Path(path))
    assert passes.since() == (1, 0)
    learner.apply(1, [Contribution("one", path, 1), Contribution("two", path, 1)])
    # Base and updates are read; the state is written into its file and into shared memory, and
    # read by the trainer to be evaluated.
    assert passes.since() == (4, 2)
    learner.close()


def test_passes_of_an_all_reduce_round_of_two(make_opening: MakeOpening, tmp_path: Path) -> None:
    task = tmp_path / "wide.py"
    task.write_text(WIDE_TASK)
    learner = open_learner(
        make_opening(task=str(task), local_unit="steps", local_amount=1, exchange="allreduce")
    )
    passes = Passes()
    trained = train(learner, 1, parts=2)
    assert passes.since() == (3, 2)
    parts = [blob.path for blob in trained.updates]
    both = [Contribution("one", parts[0], 1), Contribution("two", parts[0], 1)]
    reduced = learner.reduce(1, 0, 2, both)
    # Two halves are read, and half is written.
    assert passes.since() in ((1, 0), (1, 1))
    learner.apply_parts(1, 2, [PartResult(0, reduced.update.path), PartResult(1, parts[1])])
    assert passes.since() == (3, 2)
    learner.close()
