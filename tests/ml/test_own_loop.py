"""Tasks that bring their own batches, steps, evaluation and metrics."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ml.check_task import check_task
from ml.learner import Learner
from ml.opening import metrics_from
from ml.task.data import load_shard
from ml.task.load import load_task
from ml.task.stream import Stream
from ml.training.train import endless_batches
from p2pd.messages import Evaluate, Evaluated
from protocol.errors import ConfigError
from tests.ml.conftest import TINY_TASK, MakeOpening
from tests.ml.running import apply, open_learner, train
from tests.ml.task.test_task import error_of, load
from tests.ml.test_inner_optimizer import inner_of
from tests.ml.test_overlap import tensors_of_update

SOURCE = TINY_TASK.read_text()
STEPS = 4
LOADER = """
def train_dataset(data_dir):
    return torch.utils.data.DataLoader(_points(1, 480), batch_size=12, shuffle=True, num_workers=W)
"""
STREAM = """
class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        for index in range(100):
            yield torch.full((8,), float(index)), index % 3

def train_dataset(data_dir):
    return Endless()
"""
OWN_STEP = """
def _dicts(seed, count):
    inputs, labels = _points(seed, count).tensors
    return [{"x": one, "y": label} for one, label in zip(inputs, labels)]

def train_dataset(data_dir):
    return _dicts(1, 96)

def test_dataset(data_dir):
    return _dicts(2, 48)

def training_step(model, batch):
    return {"loss": functional.cross_entropy(model(batch["x"]), batch["y"])}

def evaluate(model, batches):
    outputs, labels = zip(*((model(batch["x"]), batch["y"]) for batch in batches))
    outputs, labels = torch.cat(outputs), torch.cat(labels)
    return {
        "loss": functional.cross_entropy(outputs, labels),
        "errors": (outputs.argmax(1) != labels).sum(),
        "rmse": float(outputs.pow(2).mean().sqrt()),
    }

METRICS = {"errors": "lower, .0f", "rmse": "lower"}
"""


def opened(tmp_path: Path, make_opening: MakeOpening, more: str, name: str = "peer") -> Learner:
    path = tmp_path / "own.py"
    path.write_text(SOURCE + more)
    settings = {"local_unit": "steps", "local_amount": STEPS}
    return open_learner(make_opening(name, task=str(path), **settings))


def evaluated(learner: Learner, root: bytes) -> Evaluated:
    return learner._trainer.evaluate(Evaluate(1, root.hex()))


@pytest.mark.parametrize("workers", [0, 2])
def test_data_loader_is_taken_with_its_workers(
    tmp_path: Path, make_opening: MakeOpening, workers: int
) -> None:
    learner = opened(tmp_path, make_opening, LOADER.replace("W)", f"{workers})"))
    trained = train(learner, 1)
    assert trained.sample_count == STEPS * 12
    assert tensors_of_update(trained)["0.weight"].any()
    learner.close()


def test_data_loader_is_cut_into_shards_that_share_nothing(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    (tmp_path / "own.py").write_text(
        SOURCE + "\ndef train_dataset(data_dir):\n    return torch.utils.data.DataLoader("
        "[(torch.full((8,), float(i)), i) for i in range(30)], batch_size=4)\n"
    )
    task = load_task(str(tmp_path / "own.py"), builtin=False)
    seen: list[int] = []
    for index in range(3):
        choice = make_opening(task=str(tmp_path / "own.py"), shard=(index, 3)).choice
        shard = load_shard(task, choice, torch.device("cpu"))
        assert isinstance(shard, Stream)
        assert shard.epoch_batches == 3
        seen += [int(one) for batch in shard.once() for one in batch.value[1]]
    assert sorted(seen) == list(range(30))


def test_stream_goes_on_from_round_to_round(tmp_path: Path, make_opening: MakeOpening) -> None:
    path = tmp_path / "own.py"
    path.write_text(SOURCE + STREAM)
    task = load_task(str(path), builtin=False)
    shards = [
        load_shard(task, make_opening(task=str(path), shard=(i, 2)).choice, torch.device("cpu"))
        for i in range(2)
    ]
    firsts = []
    for shard in shards:
        assert isinstance(shard, Stream)
        for seed in range(4):  # one batch a round: seven of 16 samples in all, dealt out to two
            firsts.append(int(next(endless_batches(task, shard, seed)).value[1].numel()))
    assert firsts == [16, 16, 16, 4, 16, 16, 16, 16]


def test_epochs_of_a_stream_without_length_are_refused(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    path = tmp_path / "own.py"
    path.write_text(SOURCE + STREAM)
    with pytest.raises(ConfigError, match="no length, so there are no epochs: take --local-steps"):
        open_learner(make_opening(task=str(path), local_unit="epochs", local_amount=1))


def test_peer_makes_its_own_shard(tmp_path: Path, make_opening: MakeOpening) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        SOURCE + "\ndef train_dataset(data_dir, shard):\n"
        "    return _points(shard.index, 30 + 10 * shard.count)\n"
    )
    task = load_task(str(path), builtin=False)
    choice = make_opening(task=str(path), shard=(1, 3)).choice
    assert len(load_shard(task, choice, torch.device("cpu"))) == 60  # type: ignore[arg-type]


def test_own_step_and_evaluation_of_items_of_any_kind(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    learner = opened(tmp_path, make_opening, OWN_STEP)
    state = apply(learner, 1, [train(learner, 1)])
    found = evaluated(learner, state.state.root)
    (errors, rmse) = metrics_from(found.metrics)
    assert (errors.name, errors.better, errors.format) == ("errors", "lower", ".0f")
    assert (rmse.name, rmse.better) == ("rmse", "lower")
    assert state.metrics == (errors, rmse)
    assert errors.value is not None
    assert errors.value == int(errors.value) == state.leading
    assert found.loss is not None
    assert 0 <= errors.value <= 48
    assert found.loss > 0
    learner.close()
    check_task(load_task(str(tmp_path / "own.py"), builtin=False), tmp_path)


def test_evaluation_is_in_the_tasks_batches(tmp_path: Path, make_opening: MakeOpening) -> None:
    """200 samples at once where BATCH_SIZE is 4 may be more than a machine has memory for."""
    counting = """
BATCH_SIZE = 4
SIZES = []

def metric(outputs, targets):
    SIZES.append(len(targets))
    return 1.0
"""
    learner = opened(tmp_path, make_opening, counting)
    sizes = learner._trainer._require().task.module.SIZES
    apply(learner, 1, [train(learner, 1)])
    assert max(sizes) == 4
    learner.close()


def test_gradients_are_accumulated_and_clipped(tmp_path: Path, make_opening: MakeOpening) -> None:
    """Two batches of 8 make the same step as one of 16, but for batch normalization."""
    plain = SOURCE.replace(" nn.BatchNorm1d(16),", "")
    updates = []
    for name, more in (
        ("whole", "BATCH_SIZE = 480"),
        ("halves", "BATCH_SIZE = 240\nACCUMULATE = 2"),
        ("clipped", "BATCH_SIZE = 480\nCLIP_NORM = 0.001"),
    ):
        path = tmp_path / f"{name}.py"
        path.write_text(f"{plain}\n{more}\n")
        settings = {"local_unit": "steps", "local_amount": 1}
        learner = open_learner(make_opening(name, task=str(path), **settings))
        updates.append(tensors_of_update(train(learner, 1)))
        learner.close()
    for name in updates[0]:
        np.testing.assert_allclose(updates[0][name], updates[1][name], rtol=1e-4, atol=1e-6)
    norm = np.sqrt(sum(float((one**2).sum()) for one in updates[2].values()))
    assert norm == pytest.approx(0.1 * 0.001, rel=1e-3)


def test_precision_leaves_parameters_as_they_are(tmp_path: Path, make_opening: MakeOpening) -> None:
    watching = """
PRECISION = "bfloat16"
DTYPES = set()

def loss(outputs, targets):
    DTYPES.add(outputs.dtype)
    return functional.cross_entropy(outputs.float(), targets)
"""
    learner = opened(tmp_path, make_opening, watching)
    train(learner, 1)
    task = learner._trainer._require().task
    assert {torch.bfloat16} == task.module.DTYPES
    assert inner_of(learner)._optimizers[0].param_groups[0]["params"][0].dtype is torch.float32
    learner.close()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("ACCUMULATE = 0", "ACCUMULATE is 0, not a whole number from 1"),
        ("CLIP_NORM = 'a'", "CLIP_NORM is 'a', not a number of 0 or more"),
        ("PRECISION = 'int8'", "PRECISION is 'int8': write float32 or bfloat16"),
        ("METRICS = {}", "METRICS: they are no dict of 1 to 16 metrics"),
        ("METRICS = {'rmse': 'down'}", "METRICS: 'rmse' is 'down', not higher or lower"),
        ("METRICS = {'rmse': 'lower, 99f'}", "METRICS: 'rmse' has the format '99f'"),
        ("METRICS = {'rmse': ''}", "METRICS: 'rmse' says '', and not which is better"),
        ("METRICS = {'a b': 'lower'}", "METRICS: 'a b' is no name"),
        ("MOVING = 'seen'", "MOVING is no list of buffers' names"),
        ("def evaluate(model): return 1", "evaluate(model) will be called as evaluate(model, batc"),
        ("training_step = 3", "training_step is not a function"),
    ],
)
def test_wrong_constant_or_function_is_named(tmp_path: Path, more: str, expected: str) -> None:
    assert expected in error_of(tmp_path, f"{SOURCE}\n{more}\n")


def test_metric_that_is_not_named_is_told(tmp_path: Path) -> None:
    source = f"{SOURCE}\ndef metric(outputs, targets):\n    return {{'f1': 0.5}}\n"
    with pytest.raises(ConfigError, match="returned f1, and METRICS has accuracy: name"):
        check_task(load(tmp_path, source), tmp_path)
