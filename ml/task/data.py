"""The samples that a peer works with: its shard of the training data, and all of the test data."""

from pathlib import Path

import numpy as np
import torch

from ml.task.choice import TaskChoice
from ml.task.load import data_directory
from ml.task.samples import Samples
from ml.task.shards import Partition, shard_indices
from ml.task.task import Task
from protocol.errors import ConfigError

NEED_NO_DATA = ("digits",)
"""Built-in tasks whose data come with a package."""


def load_shard(task: Task, choice: TaskChoice, device: torch.device) -> Samples:
    """The shard that ``choice`` names. Raises :class:`ConfigError`."""
    dataset = task.train_dataset(_directory(choice))
    partition = Partition.parse(choice.partition)
    indices = shard_indices(
        len(dataset),
        choice.shard_index,
        choice.shard_count,
        choice.seed,
        partition,
        task.labels(dataset) if partition.needs_labels else None,
    )
    return Samples(dataset, indices, device)


def load_test_samples(task: Task, choice: TaskChoice, device: torch.device) -> Samples:
    """The whole test set, for every peer the same. Raises :class:`ConfigError`."""
    dataset = task.test_dataset(_directory(choice))
    return Samples(dataset, np.arange(len(dataset), dtype=np.int64), device)


def _directory(choice: TaskChoice) -> Path:
    """The directory in which the task looks for its data. Raises :class:`ConfigError` for a
    directory that was named in error: the task would not notice that it is not there."""
    needs_none = choice.builtin and choice.task in NEED_NO_DATA
    if needs_none and choice.data_dir and not Path(choice.data_dir).is_dir():
        raise ConfigError(
            f"there is no directory {choice.data_dir}, and task {choice.task} needs none: leave out"
            " --data-dir, or name one that is there"
        )
    return data_directory(choice.data_dir)
