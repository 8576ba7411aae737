"""What a task is: a plain Python module with a model, data, a loss and a metric (docs/tasks.md).

Required: ``model() -> nn.Module``, ``train_dataset(data_dir)`` and ``test_dataset(data_dir)``
(sequences of (input, target), such as a torch Dataset; ``data_dir`` is a :class:`pathlib.Path`),
``loss(outputs, targets)`` (a scalar tensor to minimize), ``metric(outputs, targets)`` (a mean).

Optional: ``optimizer(parameters)``, ``scheduler(optimizer)``, ``training_step(model, batch)`` in
place of ``loss``, ``evaluate(model, batches)`` in place of ``metric``, and the constants of
:class:`Options` and ``ROUND`` (a dict with suggestions for the swarm's round settings).

Everything that such a module gets wrong becomes a :class:`ConfigError` that names the function.
"""

import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from ml.task.options import Evaluation, Options, options_of, whole_number
from ml.task.samples import Batch, SampleError, labels_of
from ml.task.stream import Shard, batches_of
from ml.task.words import describe_error, described
from protocol.errors import ConfigError, NoDataError
from protocol.statements.swarm import RoundSettings

DEFAULT_BATCH_SIZE = 64
DEFAULT_LEARNING_RATE = 1e-3
WHOLE = Shard(0, 1, 0)
"""All of the data."""

_REQUIRED = ("model", "train_dataset", "test_dataset")
_ARGUMENTS = {
    "model": (),
    "training_step": ("model", "batch"),
    "evaluate": ("model", "batches"),
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
    options: Options = field(default_factory=Options)

    def make_model(self, seed: int) -> nn.Module:
        """The model with the initial weights that follow from ``seed``; seeds torch."""
        torch.manual_seed(seed)
        return self._checked("model", nn.Module, "a torch.nn.Module")

    def train_dataset(self, data_dir: Path, shard: Shard = WHOLE) -> Any:
        """The training data: a sequence of samples, of all shards; or an iterable of batches.

        A function that takes ``shard`` makes this peer's own part, and nothing is split for it.
        """
        return self._dataset("train_dataset", data_dir, *self._shard_argument(shard))

    @property
    def makes_own_shard(self) -> bool:
        """Whether train_dataset() is told the shard."""
        return bool(self._shard_argument(WHOLE))

    def _shard_argument(self, shard: Shard) -> tuple[Shard, ...]:
        return (shard,) if _takes_shard(self.module.train_dataset) else ()

    def test_dataset(self, data_dir: Path) -> Any:
        """The test data, as :meth:`train_dataset`."""
        return self._dataset("test_dataset", data_dir)

    def labels(self, dataset: Any) -> NDArray[np.int64]:
        """The target of every sample of the training data, for partitions that look at classes."""
        labels: NDArray[np.int64] = self._run("train_dataset's targets", labels_of, dataset)
        return labels

    def values(self, function: str, batches: Iterator[Batch]) -> Iterator[Batch]:
        """``batches`` of what ``function`` returned; what goes wrong in them is told as its."""
        try:
            yield from batches
        except SampleError as error:
            cause = error.__cause__ or error
            raise self._error(function, f"{error}: {describe_error(cause, self.module)}") from error
        except Exception as error:
            told = describe_error(error, self.module)
            raise self._error(f"{function}()'s batches", f"failed: {told}") from error

    def training_loss(self, model: nn.Module, value: Any) -> torch.Tensor:
        """The loss of a batch: what training_step() makes of it, or loss() of the outputs."""
        if not hasattr(self.module, "training_step"):
            inputs, targets = self.pair(value)
            return self.loss(self.outputs(model, inputs), targets)
        made = self._run("training_step", self.module.training_step, model, value)
        loss = made.get("loss") if isinstance(made, Mapping) else made
        return self._checked_loss("training_step", loss)

    def pair(self, value: Any) -> tuple[Any, Any]:
        """Inputs and targets of a batch."""
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise self._error(
                "train_dataset's batches",
                f"are {described(value)}, not (inputs, targets): write training_step(model, batch)"
                " and evaluate(model, batches) to use them as they are",
            )
        return value[0], value[1]

    def evaluation(self, model: nn.Module, batches: Iterator[Batch]) -> Evaluation:
        """How good ``model`` is on the whole of ``batches``."""
        if hasattr(self.module, "evaluate"):
            values = (batch.value for batch in batches)
            made = self._run("evaluate", self.module.evaluate, model, values)
            numbers = self._numbers("evaluate", made)
            return Evaluation(numbers.pop("loss", math.nan), numbers)
        loss_sum = 0.0
        sums: dict[str, float] = {}
        total = 0
        for value, count in batches:
            if hasattr(self.module, "training_step"):
                loss = self.training_loss(model, value)
            else:
                inputs, targets = self.pair(value)
                outputs = self.outputs(model, inputs)
                loss = self.loss(outputs, targets)
                for name, number in self.metrics_of(outputs, targets).items():
                    sums[name] = sums.get(name, 0.0) + number * count
            loss_sum += float(loss) * count
            total += count
        if not total:
            raise self._error("test_dataset", "returned no samples")
        return Evaluation(loss_sum / total, {name: one / total for name, one in sums.items()})

    def outputs(self, model: nn.Module, inputs: Any) -> Any:
        """What ``model`` makes of a batch of inputs."""
        return self._run("the model's forward", model, inputs)

    def loss(self, outputs: Any, targets: Any) -> torch.Tensor:
        """The scalar to minimize, the mean over the batch."""
        return self._checked_loss("loss", self._run("loss", self.module.loss, outputs, targets))

    def backward(self, loss: torch.Tensor) -> None:
        """The gradients of a loss."""
        self._run("the loss's backward", loss.backward)

    def metrics_of(self, outputs: Any, targets: Any) -> dict[str, float]:
        """The metrics' means over the batch, by name."""
        if not hasattr(self.module, "metric"):
            return {}
        return self._numbers("metric", self._run("metric", self.module.metric, outputs, targets))

    def metric(self, outputs: Any, targets: Any) -> float:
        """The leading one of them."""
        return self.metrics_of(outputs, targets)[self.options.leading.name]

    def _checked_loss(self, function: str, value: Any) -> torch.Tensor:
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise self._error(function, f"returned {described(value)}, not a scalar tensor")
        if torch.is_grad_enabled() and not value.requires_grad:
            raise self._error(
                function, "returned a tensor that no parameter has a part in: was it detached?"
            )
        return value

    def _numbers(self, function: str, value: Any) -> dict[str, float]:
        """One number, the leading metric's, or several by name."""
        leading = self.options.leading.name
        given = value if isinstance(value, Mapping) else {leading: value}
        numbers = {str(name): self._number(function, one) for name, one in given.items()}
        known = {one.name for one in self.options.metrics} | {"loss"}
        if leading not in numbers or not numbers.keys() <= known:
            raise self._error(
                function,
                f"returned {', '.join(numbers) or 'nothing'}, and METRICS has"
                f" {', '.join(sorted(known - {'loss'}))}: name there what it returns",
            )
        return numbers

    def _number(self, function: str, value: Any) -> float:
        """Any number, also in a tensor or array of just one."""
        number = value
        if isinstance(value, torch.Tensor | np.ndarray | np.generic) and set(value.shape) <= {1}:
            number = value.item()
        if not isinstance(number, numbers.Number) or isinstance(number, bool | complex):
            raise self._error(function, f"returned {described(number)}, not a number")
        return float(self._run(f"{function}()'s number", float, number))

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
                    f"returned {described(scheduler)}, not a torch.optim.lr_scheduler that steps"
                    " by itself, such as LambdaLR or OneCycleLR",
                )
        return schedulers

    def step_scheduler(self, scheduler: Any) -> None:
        """Let a scheduler of :meth:`make_schedulers` go a step further."""
        self._run("scheduler()'s step()", scheduler.step)

    def _check_optimizer(self, optimizer: object) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise self._error(
                "optimizer", f"returned {described(optimizer)}, not a torch.optim.Optimizer"
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

    def _dataset(self, function: str, *arguments: Any) -> Any:
        try:
            dataset = self._run(function, getattr(self.module, function), *arguments)
        except ConfigError as error:
            raise NoDataError(str(error)) from error
        if isinstance(dataset, Iterator):
            raise self._error(
                function,
                f"returned {described(dataset)}, which can be gone through only once: return a"
                " DataLoader, an IterableDataset or an object whose __iter__ begins anew",
            )
        if batches_of(dataset, WHOLE, self.batch_size) is not None:
            return dataset
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise self._error(
                function, f"returned {described(dataset)}, which has no length or no items"
            )
        if not len(dataset):
            raise self._error(function, "returned no samples")
        sample = self._run(f"{function}'s first item", dataset.__getitem__, 0)
        is_pair = isinstance(sample, tuple | list) and len(sample) == 2
        if not is_pair and not hasattr(self.module, "training_step"):
            raise self._error(
                function, f"has {described(sample)} as its first item, not (input, target)"
            )
        return dataset

    def _checked(self, function: str, kind: type[T], wanted: str, *arguments: Any) -> T:
        value = self._run(function, getattr(self.module, function), *arguments)
        if not isinstance(value, kind):
            raise self._error(function, f"returned {described(value)}, not {wanted}")
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
    """The task that ``module`` defines. Raises :class:`ConfigError` for what it lacks.

    >>> check_module(ModuleType("my_task"), "my_task.py")
    Traceback (most recent call last):
    protocol.errors.ConfigError: task my_task.py: it has no function model(), train_dataset(), ...
    """
    own_step, own_evaluation = (
        hasattr(module, function) for function in ("training_step", "evaluate")
    )
    required = [*_REQUIRED, *(["loss"] if not own_step else [])]
    required += ["metric"] if not (own_step or own_evaluation) else []
    missing = [one for one in required if not callable(getattr(module, one, None))]
    if missing:
        *most, last = (f"{one}()" for one in missing)
        names = f"{', '.join(most)} and {last}" if most else last
        raise ConfigError(f"task {name}: it has no function {names}")
    for function in ("optimizer", "scheduler", "training_step", "evaluate"):
        if not callable(getattr(module, function, len)):
            raise ConfigError(f"task {name}: {function} is not a function")
    for function, arguments in _ARGUMENTS.items():
        if function == "train_dataset" and _takes_shard(module.train_dataset):
            arguments = ("data_dir", "shard")
        _check_signature(getattr(module, function, None), function, arguments, name)
    batch_size = whole_number(module, "BATCH_SIZE", DEFAULT_BATCH_SIZE, name)
    suggestion = settings_from(getattr(module, "ROUND", {}), f"task {name}: ROUND")
    return Task(name, module, batch_size, suggestion, file_sha256, options_of(module, name))


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


def _takes_shard(train_dataset: Callable[..., Any]) -> bool:
    try:
        return list(inspect.signature(train_dataset).parameters)[1:] == ["shard"]
    except (TypeError, ValueError):
        return False  # Written in C.


def _can_be_called(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether ``arguments`` are enough for it, as far as it says what it takes."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:
        return True  # Written in C.
    return True


def settings_from(given: object, place: str) -> RoundSettings:
    """The default settings with those in ``given``, a dict of :class:`RoundSettings` fields.

    Raises :class:`ConfigError`, where ``place`` tells where it stands.
    """
    known = {field: getattr(RoundSettings(), field) for field in RoundSettings.__struct_fields__}
    if not isinstance(given, dict):
        raise ConfigError(f"{place} is {described(given)}, not a dict")
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"{place} has {key!r}; known are {', '.join(known)}")
        try:
            known[key] = msgspec.convert(value, type(known[key]))
        except msgspec.ValidationError as error:
            raise ConfigError(f"{place}[{key!r}] is {value!r}: {error}") from error
    return RoundSettings(**known)
