"""Trials in gossip: the loss that moving towards a neighbour leads to, on samples kept for that."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ml.aggregate.aggregation import Plan, squared_norms
from ml.aggregate.average import Average
from ml.aggregate.mixing import moved
from ml.state.model_tensors import load_into_model, tensors_of
from ml.state.state import State, blocks_of
from ml.task.samples import Samples
from ml.task.seeds import permutation
from ml.task.task import Task
from ml.update.codec import UpdateFile
from ml.update.encoding import Floats
from protocol.errors import ConfigError

GROUPS = 8
TRIED_SAMPLES = 64
"""In a round; each round others of those that are kept."""
MIN_SAMPLES = 5 * GROUPS


def hold_out(samples: Samples, seed: int) -> tuple[Samples, Samples]:
    """What is left to train on, and a tenth to try models on (of few samples up to a fifth).

    On samples that it was trained on every model looks better than its neighbours. Raises
    :class:`ConfigError` where there are too few.
    """
    if len(samples) < MIN_SAMPLES:
        raise ConfigError(
            "aggregation trial keeps some of each peer's samples for trials: this shard has"
            f" {len(samples)}, at least {MIN_SAMPLES} are needed"
        )
    order = permutation(len(samples), seed, "held out")
    kept = max(len(samples) // 10, min(TRIED_SAMPLES, len(samples) // 5))
    return samples.take(np.sort(order[kept:])), samples.take(order[:kept])


class TrialBench:
    """A model to try in, samples to try on, and what came of it so far."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        samples: Samples,
        seed: int,
        on_batch: Callable[[], None],
    ) -> None:
        """``model`` holds anything after a trial; whoever trains it loads it first.

        ``on_batch`` is called before each batch of samples.
        """
        self.model = model
        self.task = task
        self.on_batch = on_batch
        self.trust: dict[str, float] = {}
        self._samples = samples
        self._seed = seed

    def trials(self, base: State, updates: Sequence[UpdateFile]) -> "UpdateTrials":
        """Of the parameters in ``updates``, the own first, trained from ``base``."""
        order = permutation(len(self._samples), self._seed, "trial", base.round)
        samples = self._samples.take(order[:TRIED_SAMPLES])
        return UpdateTrials(self, samples, base, updates, self.trust)


@dataclass(frozen=True, slots=True)
class UpdateTrials:
    """One round's :class:`ml.aggregate.mixing.Trials`."""

    bench: TrialBench
    samples: Samples
    base: State
    updates: Sequence[UpdateFile]
    trust: dict[str, float]

    def moved(self) -> float:
        """How far this round's training has moved the own parameters."""
        squares = 0.0
        for spec in self.base.manifest.tensors:
            if spec.has_momentum:
                for start, stop in blocks_of(spec):
                    before, after = (
                        source.read(spec, start, stop).astype(np.float32, copy=False)
                        for source in (self.base, self.updates[0])
                    )
                    squares += float(squared_norms((after - before)[np.newaxis])[0])
        return math.sqrt(squares)

    def losses(self, row: int, share: float) -> NDArray[np.float64]:
        """Of the own model moved by ``share`` of the way to that of ``updates[row]``.

        Raises :class:`VerificationError` for an update that is not sound.
        """
        both = self.updates[0], self.updates[row]

        def combine(stack: Floats) -> Floats:
            return moved(stack, [share])

        place = Average(both, lambda stacks: Plan(combine, combine))
        tensors = tensors_of(self.bench.model)
        with torch.no_grad():
            for spec in self.base.manifest.tensors:
                values = torch.from_numpy(place.read(spec, 0, spec.element_count))
                tensors[spec.name].copy_(values.reshape(spec.shape))
        return self._losses()

    def base_losses(self) -> NDArray[np.float64]:
        """Of the model from which this round's training began."""
        load_into_model(self.base, self.bench.model)
        return self._losses()

    def _losses(self) -> NDArray[np.float64]:
        model, task = self.bench.model, self.bench.task
        model.eval()
        with torch.no_grad():
            losses = []
            for inputs, targets, _ in self.samples.batches(-(-len(self.samples) // GROUPS)):
                self.bench.on_batch()
                losses.append(float(task.loss(task.outputs(model, inputs), targets)))
        return np.array(losses)
