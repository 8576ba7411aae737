"""A task's constants, each with what it may be."""

from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

from p2pd.metrics import ACCURACY, LOSS, Metric, parse_metrics
from protocol.errors import ConfigError

MAX_BATCH_SIZE = 1 << 20
"""More is a mistake in writing: whatever there are of samples, one step would take them all."""
PRECISIONS = ("float32", "bfloat16")


class Evaluation(NamedTuple):
    """How good a model is on the whole test data."""

    loss: float
    """NaN where the task does not say."""
    metrics: dict[str, float]
    """Without the loss."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a task may set by constants of these names in capitals."""

    evaluation_batch_size: int = 0
    """Samples in a batch of the test data; 0: as many as in training."""
    accumulate: int = 1
    """Batches whose gradients make one step."""
    clip_norm: float = 0.0
    """The largest norm of a step's gradients together; 0: any."""
    precision: str = "float32"
    """What the model computes in: ``bfloat16`` by torch.autocast."""
    metrics: tuple[Metric, ...] = (ACCURACY,)
    moving: tuple[str, ...] = ()
    """Buffers that training changes, but not in its first steps."""

    @property
    def leading(self) -> Metric:
        """The metric that says which round was best."""
        return self.metrics[0]


def options_of(module: ModuleType, name: str) -> Options:
    """The options of a task module. Raises :class:`ConfigError` naming the constant.

    >>> module = ModuleType("a_task")
    >>> module.ACCUMULATE, module.PRECISION = 4, "bfloat16"
    >>> options = options_of(module, "a_task.py")
    >>> options.accumulate, options.leading.name
    (4, 'loss')
    >>> module.PRECISION = "float16"
    >>> options_of(module, "a_task.py")
    Traceback (most recent call last):
    protocol.errors.ConfigError: task a_task.py: PRECISION is 'float16': write float32 or bfloat16
    """
    moving = getattr(module, "MOVING", ())
    if not isinstance(moving, list | tuple) or not all(isinstance(one, str) for one in moving):
        raise ConfigError(f"task {name}: MOVING is no list of buffers' names")
    clip_norm = getattr(module, "CLIP_NORM", 0.0)
    if isinstance(clip_norm, bool) or not isinstance(clip_norm, int | float) or clip_norm < 0:
        raise ConfigError(f"task {name}: CLIP_NORM is {clip_norm!r}, not a number of 0 or more")
    precision = getattr(module, "PRECISION", "float32")
    if precision not in PRECISIONS:
        raise ConfigError(
            f"task {name}: PRECISION is {precision!r}: write {' or '.join(PRECISIONS)}"
        )
    has_metric = hasattr(module, "metric") or hasattr(module, "evaluate")
    metrics: tuple[Metric, ...] = (ACCURACY,) if has_metric else (LOSS,)
    if hasattr(module, "METRICS"):
        try:
            metrics = parse_metrics(module.METRICS)
        except ValueError as error:
            raise ConfigError(f"task {name}: METRICS: {error}") from error
    return Options(
        evaluation_batch_size=whole_number(module, "EVALUATION_BATCH_SIZE", 0, name),
        accumulate=whole_number(module, "ACCUMULATE", 1, name),
        clip_norm=float(clip_norm),
        precision=precision,
        metrics=metrics,
        moving=tuple(moving),
    )


def whole_number(module: ModuleType, constant: str, default: int, name: str) -> int:
    """A constant from 1 on. Raises :class:`ConfigError`."""
    value = getattr(module, constant, None)
    if value is None:
        return default
    if type(value) is not int or not 1 <= value <= MAX_BATCH_SIZE:
        raise ConfigError(
            f"task {name}: {constant} is {value!r}, not a whole number from 1 to {MAX_BATCH_SIZE}"
        )
    return value
