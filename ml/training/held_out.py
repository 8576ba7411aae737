"""Samples that are kept from training, to try models on that lead towards neighbours (gossip)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ml.task.data import Data
from ml.task.samples import Samples
from ml.task.seeds import permutation
from ml.task.task import Task
from protocol.errors import ConfigError

GROUPS = 8
TRIED_SAMPLES = 64
"""Samples tried in a round; each round tries others of those that are kept."""
MIN_SAMPLES = 5 * GROUPS


def hold_out(samples: Data, seed: int) -> tuple[Samples, Samples]:
    """What is left to train on, and a tenth to try models on (of few samples up to a fifth).

    On samples that it was trained on every model looks better than its neighbours. Raises
    :class:`ConfigError` where there are too few.
    """
    if not isinstance(samples, Samples):
        raise ConfigError(
            "aggregation trial keeps some of each peer's samples for trials, and train_dataset()"
            " returned batches: return a dataset of samples, or take another rule"
        )
    if len(samples) < MIN_SAMPLES:
        raise ConfigError(
            "aggregation trial keeps some of each peer's samples for trials: this shard has"
            f" {len(samples)}, at least {MIN_SAMPLES} are needed"
        )
    order = permutation(len(samples), seed, "held out")
    kept = max(len(samples) // 10, min(TRIED_SAMPLES, len(samples) // 5))
    return samples.take(np.sort(order[kept:])), samples.take(order[:kept])


class HeldOut:
    """The samples that are tried on, each round others of them."""

    def __init__(
        self, task: Task, samples: Samples, seed: int, on_batch: Callable[[], None]
    ) -> None:
        """``on_batch`` is called before each batch of samples."""
        self._task = task
        self._samples = samples
        self._seed = seed
        self._on_batch = on_batch

    def losses(self, model: nn.Module, round_number: int) -> list[float]:
        """The losses of ``model`` on each of :data:`GROUPS` groups of samples.

        ``round_number``: of the state that the round began from; it decides the samples.
        """
        order = permutation(len(self._samples), self._seed, "trial", round_number)
        samples = self._samples.take(order[:TRIED_SAMPLES])
        task = self._task
        losses = []
        model.eval()
        with torch.no_grad():
            for value, _ in samples.values(-(-len(samples) // GROUPS)):
                self._on_batch()
                losses.append(float(task.training_loss(model, value)))
        return losses
