"""What one round of a task costs on this machine: time and bytes, from a few steps that are run."""

import time

from torch import nn

from ml.cost import RoundCost
from ml.rules.local_work import LocalWork
from ml.state.manifest import Manifest
from ml.task.data import Data
from ml.task.samples import Samples
from ml.task.task import Task
from ml.training.train import StepReport, steps_an_epoch, train
from ml.update.codec import UpdateCodec, parse_encoding
from protocol.errors import ConfigError, WorkerError
from protocol.statements.swarm import RoundSettings

TRIED_STEPS = 20
TRIED_S = 3.0


def round_cost(
    task: Task, model: nn.Module, manifest: Manifest, samples: Data, test_samples: int
) -> RoundCost:
    """Train ``model``, which moves, for a moment. Raises :class:`ConfigError`.

    Example (ml/check_task.py)::

        test_count = len(tests) if isinstance(tests, Samples) else 0
        cost = round_cost(task, model, manifest, samples, test_count)
    """
    until = time.monotonic() + TRIED_S
    reports: list[StepReport] = []
    try:
        tried = train(
            model,
            task,
            samples,
            LocalWork("steps", TRIED_STEPS),
            0,
            should_finish=lambda: time.monotonic() > until,
            on_step=reports.append,
            clock=time.monotonic,
        )
    except WorkerError as error:
        raise ConfigError(
            f"task {task.name}: {error}; is the learning rate too high, or are the data not scaled?"
        ) from error
    speed = reports[-1].samples_per_second
    settings = task.suggestion
    steps, training_s = 0, float(settings.local_amount)
    if settings.local_unit != "seconds":
        work = LocalWork.parse(settings.local_unit, settings.local_amount)
        steps = int(work.max_steps(steps_an_epoch(task, samples, work)))
        training_s = steps * tried.seconds / tried.steps
    return RoundCost(
        train_samples=len(samples) if isinstance(samples, Samples) else 0,
        test_samples=test_samples,
        loss=tried.loss,
        samples_per_second=speed,
        steps_a_round=steps,
        training_s=training_s,
        update_bytes=_update_bytes(manifest, settings),
        encoding=settings.compression,
    )


def _update_bytes(manifest: Manifest, settings: RoundSettings) -> int:
    """The largest fragment's."""
    encoding, count = parse_encoding(settings.compression), settings.fragments
    codecs = (UpdateCodec(manifest, encoding, number, count) for number in range(count))
    return max(codec.layout.size_bytes for codec in codecs)
