"""MNIST cut into as many shards as there are peers, loaded once for many runs."""

from dataclasses import dataclass

import numpy as np
import torch

from ml.task.load import data_directory, load_task
from ml.task.samples import Samples
from ml.task.shards import Partition, shard_indices
from ml.task.task import Task

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class MnistShards:
    """The built-in task and its data, as peers 0 to N - 1 of a swarm have them."""

    task: Task
    seed: int
    train: list[Samples]
    test: Samples

    @classmethod
    def load(cls, data_dir: str, peers: int, seed: int) -> "MnistShards":
        """IID. Raises :class:`ConfigError` where MNIST is not there and cannot be downloaded."""
        task = load_task("mnist", builtin=True)
        train, test = (
            function(data_directory(data_dir))
            for function in (task.train_dataset, task.test_dataset)
        )
        shards = [
            shard_indices(len(train), index, peers, seed, Partition.parse("iid"))
            for index in range(peers)
        ]
        return cls(
            task,
            seed,
            [Samples(train, shard, CPU) for shard in shards],
            Samples(test, np.arange(len(test), dtype=np.int64), CPU),
        )
