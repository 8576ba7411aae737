"""Batches: what goes into them comes out with its type, and every dataset is asked."""

import dataclasses
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset, default_collate

from ml.task.samples import Samples, batch_count, moved
from ml.task.task import check_module
from tests.ml.conftest import TINY_TASK
from tests.ml.task.test_task import load

CPU = torch.device("cpu")


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass
class Record:
    values: Any
    name: str


class Named(dict[str, Any]):
    """A mapping of one's own."""


ITEMS = [
    Pair(torch.ones(2), {"a": torch.zeros(1)}),
    OrderedDict(b=torch.ones(1), a=torch.zeros(2)),
    {"text": "words", "numbers": [1, 2.5]},
    Named(x=torch.ones(3)),
    (torch.ones(1), (torch.ones(2), "tail")),
]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: type(item).__name__)
def test_model_gets_what_default_collate_makes(item: Any) -> None:
    samples = Samples([(item, 1)] * 3, np.arange(3), CPU)
    inputs, targets, count = next(samples.batches(3))
    wanted = default_collate([item] * 3)
    assert same(inputs, wanted)
    assert targets.tolist() == [1, 1, 1]
    assert count == 3


@pytest.mark.parametrize(
    "value",
    [
        *ITEMS,
        Record(torch.ones(2), "name"),
        MappingProxyType({"a": torch.ones(1)}),
        defaultdict(lambda: torch.zeros(1), a=torch.ones(1)),
        None,
        "text",
        frozenset({1}),
        Record,
    ],
    ids=lambda value: type(value).__name__,
)
def test_moving_to_a_device_keeps_types(value: Any) -> None:
    assert same(moved(value, CPU), value)


def same(value: Any, wanted: Any) -> bool:
    """Of the same types, with the same numbers."""
    if type(value) is not type(wanted):
        return False
    if isinstance(value, torch.Tensor):
        return torch.equal(value, wanted)
    if isinstance(value, Record):
        return same(vars(value), vars(wanted))
    if hasattr(value, "keys"):
        return list(value) == list(wanted) and all(same(value[key], wanted[key]) for key in value)
    if isinstance(value, tuple | list):
        return len(value) == len(wanted) and all(map(same, value, wanted))
    return bool(value == wanted)


class Blank(TensorDataset):
    """Gives other inputs than its tensors hold."""

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return torch.zeros(2), self.tensors[1][index]


def test_subclass_of_tensor_dataset_is_asked_for_its_items() -> None:
    dataset = Blank(torch.ones(6, 2), torch.arange(6))
    samples = Samples(dataset, np.array([1, 4]), CPU)
    inputs, targets, _ = next(samples.batches(2))
    assert not inputs.any()
    assert targets.tolist() == [1, 4]


@pytest.mark.parametrize(("count", "size"), [(3, 2), (5, 2), (7, 3), (1, 2), (2, 64), (9, 1)])
def test_no_sample_is_alone_in_a_batch_that_could_be_larger(count: int, size: int) -> None:
    samples = Samples(range(count), np.arange(count), CPU)
    sizes = [len(part) for part in np.array_split(np.arange(count), batch_count(count, size))]
    assert sum(sizes) == len(samples)
    assert min(sizes) > 1 or count == 1 or size == 1
    assert max(sizes) <= size + 1


def test_batch_normalization_trains_on_three_samples_in_twos(tmp_path: Path) -> None:
    source = TINY_TASK.read_text().replace("BATCH_SIZE = 16", "BATCH_SIZE = 2")
    task = load(tmp_path, source)
    samples = Samples(task.train_dataset(tmp_path), np.arange(3), CPU)
    norm = nn.BatchNorm1d(8)
    for inputs, _, _ in samples.batches(task.batch_size):
        norm(inputs)
    assert norm.num_batches_tracked == 1


def test_schedule_made_inside_optimizer_is_taken(tmp_path: Path) -> None:
    source = TINY_TASK.read_text().replace(
        "return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)",
        "made = torch.optim.AdamW(parameters)\n"
        "    torch.optim.lr_scheduler.LambdaLR(made, lambda step: 0.5)\n    return made",
    )
    task = check_module(load(tmp_path, source).module, "task")
    (optimizer,) = task.make_optimizers(task.make_model(0).parameters())
    assert optimizer.param_groups[0]["lr"] == 0.5e-3
