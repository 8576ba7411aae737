"""The samples that a peer works with: its shard of the training data, and all of the test data."""

from pathlib import Path

import numpy as np
import torch

from ml.task.choice import TaskChoice
from ml.task.load import data_directory
from ml.task.samples import Samples
from ml.task.shards import Partition, shard_indices
from ml.task.stream import Shard, Stream, batches_of, is_dealt_out
from ml.task.task import WHOLE, Task
from protocol.errors import ConfigError

NEED_NO_DATA = ("digits",)
"""Built-in tasks whose data come with a package."""


Data = Samples | Stream


def load_shard(task: Task, choice: TaskChoice, device: torch.device) -> Data:
    """The shard that ``choice`` names. Raises :class:`ConfigError`.

    >>> from ml.task.load import load_builtin_task
    >>> quarter = TaskChoice("digits", True, shard_index=0, shard_count=4, data_dir="", seed=7)
    >>> samples = load_shard(load_builtin_task("digits"), quarter, torch.device("cpu"))
    >>> len(samples)
    359
    """
    shard = Shard(choice.shard_index, choice.shard_count, choice.seed)
    dataset = task.train_dataset(_directory(choice), shard)
    if task.makes_own_shard:
        shard = WHOLE
    batches = batches_of(dataset, shard, task.batch_size)
    if batches is not None:
        if choice.partition != "iid" and shard.count > 1:
            raise ConfigError(
                f"task {task.name}: partition {choice.partition} needs a dataset of samples, and"
                " train_dataset() returned batches"
            )
        return Stream(batches, device, WHOLE if is_dealt_out(dataset) else shard)
    if task.makes_own_shard:
        return Samples(dataset, np.arange(len(dataset), dtype=np.int64), device)
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


def load_test_samples(task: Task, choice: TaskChoice, device: torch.device) -> Data:
    """The whole test set, for every peer the same. Raises :class:`ConfigError`."""
    dataset = task.test_dataset(_directory(choice))
    batches = batches_of(dataset, WHOLE, task.options.evaluation_batch_size or task.batch_size)
    if batches is not None:
        return Stream(batches, device, WHOLE)
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
