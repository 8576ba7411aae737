"""The samples that a peer works with: its shard of the training data, and all of the test data."""

import numpy as np
import torch

from ml.samples import Samples
from ml.shards import Partition, shard_indices
from ml.task import Task
from ml.task_file import data_directory
from ml.worker_messages import TaskChoice


def load_shard(task: Task, choice: TaskChoice, device: torch.device) -> Samples:
    """The shard that ``choice`` names. Raises :class:`ConfigError`."""
    dataset = task.train_dataset(data_directory(choice.data_dir))
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
    dataset = task.test_dataset(data_directory(choice.data_dir))
    return Samples(dataset, np.arange(len(dataset), dtype=np.int64), device)
