"""What a task is: a plain Python module with a model, data, a loss and a metric.

Required: ``model() -> nn.Module``, ``train_dataset(data_dir)`` and ``test_dataset(data_dir)``
(sequences of (input, target), such as a torch Dataset; ``data_dir`` is a :class:`pathlib.Path`),
``loss(outputs, targets)`` (a scalar tensor to minimize) and ``metric(outputs, targets)`` (the
mean over the given samples, such as the accuracy from 0 to 1).

Optional: ``optimizer(parameters)`` (a torch optimizer or several; else AdamW),
``scheduler(optimizer)`` (of learning rates; stepped after each step), ``BATCH_SIZE`` (else 64),
``ROUND`` (a dict with suggestions for the swarm's round settings).

Everything that such a module gets wrong becomes a :class:`ConfigError` that names the function.
"""

import inspect
import numbers
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from ml.task.samples import Batch, SampleError, Samples, labels_of
from protocol.errors import ConfigError
from protocol.statements.swarm import RoundSettings

DEFAULT_BATCH_SIZE = 64
DEFAULT_LEARNING_RATE = 1e-3
MAX_BATCH_SIZE = 1 << 20
"""More is a mistake in writing: whatever there are of samples, one step would take them all."""

_REQUIRED = ("model", "train_dataset", "test_dataset", "loss", "metric")
_ARGUMENTS = {
    "model": (),
    "train_dataset": ("data_dir",),
    "test_dataset": ("data_dir",),
    "loss": ("outputs", "targets"),
    "metric": ("outputs", "targets"),
    "optimizer": ("parameters",),
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Task:
    """A checked task module. Its functions are called through the methods, never directly."""

    name: str
    module: ModuleType
    batch_size: int
    suggestion: RoundSettings
    """The defaults, with what the task's ``ROUND`` says instead."""
    file_sha256: bytes = b""
    """Of a task file; empty for a built-in task."""
    moving: tuple[str, ...] = ()
    """Buffers that training changes, but not in its first steps."""

    def make_model(self, seed: int) -> nn.Module:
        """The model with the initial weights that follow from ``seed``; seeds torch."""
        torch.manual_seed(seed)
        return self._checked("model", nn.Module, "a torch.nn.Module")

    def train_dataset(self, data_dir: Path) -> Any:
        """The training data of all shards: a sequence of (input, target)."""
        return self._dataset("train_dataset", data_dir)

    def test_dataset(self, data_dir: Path) -> Any:
        """The test data: a sequence of (input, target)."""
        return self._dataset("test_dataset", data_dir)

    def labels(self, dataset: Any) -> NDArray[np.int64]:
        """The target of every sample of the training data, for partitions that look at classes."""
        labels: NDArray[np.int64] = self._run("train_dataset's targets", labels_of, dataset)
        return labels

    def batches(
        self,
        function: str,
        samples: Samples,
        batch_size: int,
        order: NDArray[np.int64] | None = None,
    ) -> Iterator[Batch]:
        """Batches as in :meth:`Samples.batches`, of the dataset that ``function`` returned."""
        try:
            yield from samples.batches(batch_size, order)
        except SampleError as error:
            cause = error.__cause__ or error
            raise self._error(function, f"{error}: {describe_error(cause, self.module)}") from error

    def outputs(self, model: nn.Module, inputs: Any) -> Any:
        """What ``model`` makes of a batch of inputs."""
        return self._run("the model's forward", model, inputs)

    def loss(self, outputs: Any, targets: Any) -> torch.Tensor:
        """The scalar to minimize, the mean over the batch."""
        value = self._run("loss", self.module.loss, outputs, targets)
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise self._error("loss", f"returned {_described(value)}, not a scalar tensor")
        if torch.is_grad_enabled() and not value.requires_grad:
            raise self._error(
                "loss", "returned a tensor that no parameter has a part in: was it detached?"
            )
        return value

    def backward(self, loss: torch.Tensor) -> None:
        """The gradients of a loss."""
        self._run("the loss's backward", loss.backward)

    def metric(self, outputs: Any, targets: Any) -> float:
        """The metric's mean over the batch: any number, also in a tensor or array of just one."""
        value = self._run("metric", self.module.metric, outputs, targets)
        number = value
        if isinstance(value, torch.Tensor | np.ndarray | np.generic) and set(value.shape) <= {1}:
            number = value.item()
        if not isinstance(number, numbers.Number) or isinstance(number, bool | complex):
            raise self._error("metric", f"returned {_described(number)}, not a number")
        return float(self._run("metric()'s number", float, number))

    def make_optimizers(self, parameters: Iterable[nn.Parameter]) -> list[torch.optim.Optimizer]:
        """New inner optimizers, together over at least one of the trainable ``parameters``."""
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        if not trainable:
            raise self._error("model", "returned a model in which no parameter requires a gradient")
        if not hasattr(self.module, "optimizer"):
            return [torch.optim.AdamW(trainable, lr=DEFAULT_LEARNING_RATE)]
        returned = self._run("optimizer", self.module.optimizer, trainable)
        optimizers = list(returned) if isinstance(returned, list | tuple) else [returned]
        for optimizer in optimizers:
            self._check_optimizer(optimizer)
        stepped = {
            id(one) for made in optimizers for group in made.param_groups for one in group["params"]
        }
        if stepped.isdisjoint(map(id, trainable)):
            made = " and ".join(type(one).__name__ for one in optimizers) or "none"
            raise self._error(
                "optimizer",
                f"returned {made} over none of the parameters that it was given: the model would"
                " stay as it is",
            )
        return optimizers

    def make_schedulers(
        self, optimizers: list[torch.optim.Optimizer], total_steps: int | None
    ) -> list[Any]:
        """What moves the optimizers' learning rates, a step at a time; none where it has none."""
        if not hasattr(self.module, "scheduler"):
            return []
        made = optimizers[0] if len(optimizers) == 1 else optimizers
        takes_total = _can_be_called(self.module.scheduler, made, total_steps)
        arguments = (made, total_steps) if takes_total else (made,)
        returned = self._run("scheduler", self.module.scheduler, *arguments)
        schedulers = list(returned) if isinstance(returned, list | tuple) else [returned]
        for scheduler in schedulers:
            if not isinstance(scheduler, LRScheduler) or not _can_be_called(
                type(scheduler).step, scheduler
            ):
                raise self._error(
                    "scheduler",
                    f"returned {_described(scheduler)}, not a torch.optim.lr_scheduler that steps"
                    " by itself, such as LambdaLR or OneCycleLR",
                )
        return schedulers

    def step_scheduler(self, scheduler: Any) -> None:
        """Let a scheduler of :meth:`make_schedulers` go a step further."""
        self._run("scheduler()'s step()", scheduler.step)

    def _check_optimizer(self, optimizer: object) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise self._error(
                "optimizer", f"returned {_described(optimizer)}, not a torch.optim.Optimizer"
            )
        # The class's: a scheduler hides the object's own behind a wrapper.
        if not _can_be_called(type(optimizer).step, optimizer):
            raise self._error(
                "optimizer",
                f"returned {type(optimizer).__name__}, whose step() needs arguments: take one that"
                " steps by the gradients alone, such as SGD or AdamW",
            )

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let an optimizer of :meth:`make_optimizers` move its parameters by their gradients."""
        has_own = hasattr(self.module, "optimizer")
        self._run("optimizer()'s step()" if has_own else "AdamW's step()", optimizer.step)

    def _dataset(self, function: str, data_dir: Path) -> Any:
        dataset = self._run(function, getattr(self.module, function), data_dir)
        if isinstance(dataset, DataLoader):
            raise self._error(
                function, "returned a DataLoader: return its dataset, the batches are made for you"
            )
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise self._error(
                function, f"returned {_described(dataset)}, which has no length or no items"
            )
        if not len(dataset):
            raise self._error(function, "returned no samples")
        sample = self._run(f"{function}'s first item", dataset.__getitem__, 0)
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise self._error(
                function, f"has {_described(sample)} as its first item, not (input, target)"
            )
        return dataset

    def _checked(self, function: str, kind: type[T], wanted: str, *arguments: Any) -> T:
        value = self._run(function, getattr(self.module, function), *arguments)
        if not isinstance(value, kind):
            raise self._error(function, f"returned {_described(value)}, not {wanted}")
        return value

    def _run(self, function: str, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except (Exception, SystemExit) as error:
            raise self._error(function, f"failed: {describe_error(error, self.module)}") from error

    def _error(self, function: str, text: str) -> ConfigError:
        name = f"{function}()" if function.isidentifier() else function
        return ConfigError(f"task {self.name}: {name} {text}")


def check_module(module: ModuleType, name: str, file_sha256: bytes = b"") -> Task:
    """The task that ``module`` defines. Raises :class:`ConfigError` for what it lacks."""
    missing = [one for one in _REQUIRED if not callable(getattr(module, one, None))]
    if missing:
        *most, last = (f"{one}()" for one in missing)
        names = f"{', '.join(most)} and {last}" if most else last
        raise ConfigError(f"task {name}: it has no function {names}")
    for function in ("optimizer", "scheduler"):
        if not callable(getattr(module, function, len)):
            raise ConfigError(f"task {name}: {function} is not a function")
    for function, arguments in _ARGUMENTS.items():
        _check_signature(getattr(module, function, None), function, arguments, name)
    batch_size = getattr(module, "BATCH_SIZE", DEFAULT_BATCH_SIZE)
    if type(batch_size) is not int or not 1 <= batch_size <= MAX_BATCH_SIZE:
        raise ConfigError(
            f"task {name}: BATCH_SIZE is {batch_size!r}, not a whole number from 1 to"
            f" {MAX_BATCH_SIZE}"
        )
    suggestion = settings_from(getattr(module, "ROUND", {}), f"task {name}: ROUND")
    return Task(name, module, batch_size, suggestion, file_sha256, _moving(module, name))


def _moving(module: ModuleType, name: str) -> tuple[str, ...]:
    moving = getattr(module, "MOVING", ())
    if not isinstance(moving, list | tuple) or not all(isinstance(one, str) for one in moving):
        raise ConfigError(f"task {name}: MOVING is no list of buffers' names")
    return tuple(moving)


def _check_signature(
    function: Callable[..., Any] | None, called: str, arguments: tuple[str, ...], name: str
) -> None:
    try:
        signature = None if function is None else inspect.signature(function)
    except ValueError:
        return  # Written in C: what it takes shows when it is called.
    try:
        if signature is not None:
            signature.bind(*arguments)
    except TypeError:
        raise ConfigError(
            f"task {name}: {called}{signature} will be called as {called}({', '.join(arguments)})"
        ) from None


def _can_be_called(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether ``arguments`` are enough for it, as far as it says what it takes."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:
        return True  # Written in C.
    return True


def describe_error(error: BaseException, module: ModuleType) -> str:
    """Type, message, and the last line of ``module`` that led there."""
    path = getattr(module, "__file__", None)
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path
    ]
    place = f" (line {lines[-1]} of {Path(path).name})" if path and lines else ""
    return f"{type(error).__name__}: {error}{place}"


def settings_from(given: object, place: str) -> RoundSettings:
    """The default settings with those in ``given``, a dict of :class:`RoundSettings` fields.

    Raises :class:`ConfigError`, where ``place`` tells where it stands.
    """
    known = {field: getattr(RoundSettings(), field) for field in RoundSettings.__struct_fields__}
    if not isinstance(given, dict):
        raise ConfigError(f"{place} is {_described(given)}, not a dict")
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"{place} has {key!r}; known are {', '.join(known)}")
        try:
            known[key] = msgspec.convert(value, type(known[key]))
        except msgspec.ValidationError as error:
            raise ConfigError(f"{place}[{key!r}] is {value!r}: {error}") from error
    return RoundSettings(**known)


def _described(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} of shape {list(value.shape)}"
    if value is None:
        return "None"
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"
