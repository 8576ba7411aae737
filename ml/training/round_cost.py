"""What one round of a task costs on this machine: time and bytes, from a few steps that are run."""

import time
from dataclasses import dataclass

from torch import nn

from ml.rules.local_work import LocalWork
from ml.state.manifest import Manifest
from ml.task.data import Data
from ml.task.samples import Samples
from ml.task.task import Task
from ml.training.train import StepReport, steps_an_epoch, train
from ml.update.codec import UpdateCodec, parse_encoding
from protocol.errors import ConfigError, WorkerError

TRIED_STEPS = 20
TRIED_S = 3.0


@dataclass(frozen=True, slots=True)
class RoundCost:
    """What a round costs with the settings that the task suggests, on all of its data."""

    train_samples: int
    """0 where the task makes batches itself, as in ``test_samples``."""
    test_samples: int
    loss: float
    """Mean over the steps that were tried, at the beginning of the training."""
    samples_per_second: float
    steps_a_round: int
    """0: as many as fit into the round's seconds."""
    training_s: float
    """The time of one round's local work at that speed."""
    update_bytes: int
    """What a peer sends each of the others in a round."""
    encoding: str

    @property
    def _sample_counts(self) -> tuple[int, int]:
        return self.train_samples, self.test_samples

    def as_text(self) -> str:
        """A few lines for people."""
        steps = f"{self.steps_a_round:,} steps, " if self.steps_a_round else ""
        counts = [f"{one:,} samples" if one else "batches" for one in self._sample_counts]
        data = f"{counts[0]} to train on, {counts[1]} to test on"
        facts = (
            ("data", data),
            ("speed", f"{self.samples_per_second:,.0f} samples/s here"),
            ("loss", f"{self.loss:.4f} in the first steps"),
            ("a round", f"{steps}{self.training_s:.1f} s of training with all data"),
            ("traffic", f"{_size(self.update_bytes)} a round to each other peer"),
        )
        return "\n".join(f"{label:8}{fact}" for label, fact in facts)


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
        update_bytes=UpdateCodec(manifest, parse_encoding(settings.compression)).layout.size_bytes,
        encoding=settings.compression,
    )


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
