"""Local training: the inner steps of one round, by epochs, steps or seconds."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ml.rules.local_work import LocalWork
from ml.task.samples import Batch, Samples, batch_count
from ml.task.seeds import derive_seed, permutation
from ml.task.task import Task
from ml.training.inner_optimizer import InnerOptimizer
from protocol.errors import ConfigError, WorkerError

EVALUATION_BATCH_SIZE = 250


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
    samples: Samples,
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
    """
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    inner = inner or InnerOptimizer(model, task)
    max_steps = work.max_steps(batch_count(len(samples), task.batch_size))
    inner.begin(round_number, max_steps)
    started_s = clock()
    steps = seen = 0
    loss_sum = 0.0
    model.train()
    for inputs, targets, count in endless_batches(task, samples, seed):
        inner.clear_gradients()
        loss = task.loss(task.outputs(model, inputs), targets)
        task.backward(loss)
        inner.step()
        value = float(loss.detach())
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
    return LocalResult(min(seen, len(samples)), steps, loss_sum / seen, clock() - started_s)


def try_step(model: nn.Module, task: Task, samples: Samples) -> None:
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


def evaluate(
    model: nn.Module, task: Task, samples: Samples, on_batch: Callable[[], None] = lambda: None
) -> tuple[float, float]:
    """Mean loss and metric over ``samples``; ``on_batch`` is called after each batch."""
    loss_sum = metric_sum = 0.0
    model.eval()
    with torch.no_grad():
        batches = task.batches("test_dataset", samples, EVALUATION_BATCH_SIZE)
        for inputs, targets, count in batches:
            outputs = task.outputs(model, inputs)
            loss_sum += float(task.loss(outputs, targets)) * count
            metric_sum += task.metric(outputs, targets) * count
            on_batch()
    return loss_sum / len(samples), metric_sum / len(samples)


def round_seed(swarm_seed: int, round_number: int, shard_index: int, shard_count: int) -> int:
    """The seed of a peer's training in a round."""
    return derive_seed(swarm_seed, "round", round_number, shard_index, shard_count)


def endless_batches(task: Task, samples: Samples, seed: int) -> Iterator[Batch]:
    """A round's batches: epoch after epoch, each in an order that follows from ``seed``."""
    epoch = 0
    while True:
        order = permutation(len(samples), seed, "epoch", epoch)
        yield from task.batches("train_dataset", samples, task.batch_size, order)
        epoch += 1
