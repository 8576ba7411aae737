"""Local training: the inner steps of one round, by epochs, steps or seconds."""

import contextlib
import itertools
import math
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ml.rules.local_work import LocalWork
from ml.task.data import Data
from ml.task.options import Evaluation
from ml.task.samples import Batch, batch_count
from ml.task.seeds import derive_seed, permutation
from ml.task.stream import Stream
from ml.task.task import Task
from ml.training.inner_optimizer import InnerOptimizer
from protocol.errors import ConfigError, WorkerError


@dataclass(frozen=True, slots=True)
class StepReport:
    """How the training goes."""

    step: int
    loss: float
    samples_per_second: float


@dataclass(frozen=True, slots=True)
class LocalResult:
    """What was done in a round."""

    sample_count: int
    """How many different samples were seen."""
    steps: int
    loss: float
    """Mean over the samples seen."""
    seconds: float


def train(
    model: nn.Module,
    task: Task,
    samples: Data,
    work: LocalWork,
    seed: int,
    *,
    should_finish: Callable[[], bool],
    on_step: Callable[[StepReport], None],
    clock: Callable[[], float],
    inner: InnerOptimizer | None = None,
    round_number: int = 1,
) -> LocalResult:
    """Train ``model`` in place; at least one step, also when asked to finish before.

    ``inner``: what moves the model, and lives longer than this round; None: one of its own.

    ``seed`` decides the order of the samples and everything random inside the model.
    ``should_finish`` is asked after each step, ``clock`` gives monotonic seconds. Raises
    :class:`WorkerError` when the loss stops being a number.

    Example (ml/training/local_training.py)::

        return train(
            self._tensors.model,
            self._task,
            self._samples,
            self._rules.work,
            round_seed(choice.seed, round_number, choice.shard_index, choice.shard_count),
            should_finish=should_finish,
            on_step=on_step,
            clock=time.monotonic,
            inner=self._inner or self._make_inner(None),
            round_number=round_number,
        )
    """
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    inner = inner or InnerOptimizer(model, task)
    max_steps = work.max_steps(steps_an_epoch(task, samples, work))
    inner.begin(round_number, max_steps)
    started_s = clock()
    steps = seen = 0
    loss_sum = 0.0
    model.train()
    batches = endless_batches(task, samples, seed)
    while True:
        value, count = take_step(model, task, inner, batches)
        if not math.isfinite(value):
            raise WorkerError(f"training diverged: the loss is {value} at step {steps + 1}")
        steps += 1
        seen += count
        loss_sum += value * count
        elapsed_s = clock() - started_s
        on_step(StepReport(steps, value, seen / max(elapsed_s, 1e-9)))
        out_of_time = work.unit == "seconds" and elapsed_s >= work.amount
        if steps >= max_steps or out_of_time or should_finish():
            break
    inner.end()
    different = seen if isinstance(samples, Stream) else min(seen, len(samples))
    return LocalResult(different, steps, loss_sum / seen, clock() - started_s)


def try_step(model: nn.Module, task: Task, samples: Data) -> None:
    """Train for the first step of all, so that mistakes in what it calls show; ``model`` moves.

    Raises :class:`ConfigError`.
    """
    try:
        train(
            model,
            task,
            samples,
            LocalWork("steps", 1),
            0,
            should_finish=lambda: True,
            on_step=lambda report: None,
            clock=lambda: 0.0,
        )
    except WorkerError as error:
        raise ConfigError(
            f"task {task.name}: {error}, the very first: look at what loss() makes of the model's"
            " outputs, and at the data"
        ) from error


def take_step(
    model: nn.Module, task: Task, inner: InnerOptimizer, batches: Iterator[Batch]
) -> tuple[float, int]:
    """One step by as many of ``batches`` as the task accumulates: mean loss, number of samples."""
    options = task.options
    inner.clear_gradients()
    loss_sum, seen = 0.0, 0
    for batch in itertools.islice(batches, options.accumulate):
        with _precision(model, options.precision):
            loss = task.training_loss(model, batch.value)
        task.backward(loss if options.accumulate == 1 else loss / options.accumulate)
        loss_sum += float(loss.detach()) * batch.size
        seen += batch.size
    if options.clip_norm:
        trained = [one for one in model.parameters() if one.requires_grad]
        nn.utils.clip_grad_norm_(trained, options.clip_norm)
    inner.step()
    return loss_sum / seen, seen


def steps_an_epoch(task: Task, samples: Data, work: LocalWork) -> int:
    """Raises :class:`ConfigError` where epochs are asked for of batches without a number."""
    if isinstance(samples, Stream):
        count = samples.epoch_batches
        if count is None and work.unit == "epochs":
            raise ConfigError(
                f"task {task.name}: train_dataset()'s batches have no length, so there are no"
                " epochs: take --local-steps or --local-seconds, or 'local_unit' in ROUND"
            )
        count = count or 1
    else:
        count = batch_count(len(samples), task.batch_size)
    return -(-count // task.options.accumulate)


def evaluate(
    model: nn.Module, task: Task, samples: Data, on_batch: Callable[[], None] = lambda: None
) -> Evaluation:
    """How good ``model`` is on ``samples``; ``on_batch`` is called after each batch."""
    size = task.options.evaluation_batch_size or task.batch_size

    def told() -> Iterator[Batch]:
        batches = samples.once() if isinstance(samples, Stream) else samples.values(size)
        for batch in task.values("test_dataset", batches):
            yield batch
            on_batch()

    model.eval()
    with torch.no_grad(), _precision(model, task.options.precision):
        return task.evaluation(model, told())


def round_seed(swarm_seed: int, round_number: int, shard_index: int, shard_count: int) -> int:
    """The seed of a peer's training in a round."""
    return derive_seed(swarm_seed, "round", round_number, shard_index, shard_count)


def endless_batches(task: Task, samples: Data, seed: int) -> Iterator[Batch]:
    """A round's batches: epoch after epoch, each in an order that follows from ``seed``."""
    if isinstance(samples, Stream):
        yield from task.values("train_dataset", samples.endless())
        return
    epoch = 0
    while True:
        order = permutation(len(samples), seed, "epoch", epoch)
        yield from task.values("train_dataset", samples.values(task.batch_size, order))
        epoch += 1


def _precision(model: nn.Module, precision: str) -> AbstractContextManager[Any]:
    if precision == "float32":
        return contextlib.nullcontext()
    device = next(model.parameters()).device
    return torch.autocast(device.type, torch.bfloat16)
