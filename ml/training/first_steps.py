"""The first steps of all, which are tried before a peer takes part: mistakes in what a round will
call show at the start, and so does what training changes (p2pd/what_travels.py)."""

from collections.abc import Callable

import torch
from torch import nn

from ml.task.data import Data
from ml.task.task import Task
from ml.training.train import evaluate, try_step
from p2pd.model_tensors import ModelTensors
from p2pd.shared_tensors import NO_ROOT, SharedTensors
from p2pd.what_travels import UnusableModelError, Watch, still_by_kind, tensors_of
from protocol.errors import ConfigError

PROBE_SAMPLES = 8


def try_first_steps(
    model: nn.Module,
    task: Task,
    samples: Data,
    test_samples: Data | None,
    on_work: Callable[[], None] = lambda: None,
) -> frozenset[str]:
    """The names of the tensors that do not travel; ``model`` moves. Raises :class:`ConfigError`.

    ``test_samples``: None where nobody evaluates.

    It is also where torch loads what an optimizer needs, which takes it seconds.

    Example (ml/check_task.py)::

        still = try_first_steps(model, task, samples, tests)
        manifest = manifest_of(model, still)
    """
    try:
        watch = Watch(model)
        try_step(model, task, samples)
        on_work()
        if test_samples is not None:
            evaluate(model, task, test_samples.head(PROBE_SAMPLES), on_work)
        return watch.still(task.options.moving)
    except UnusableModelError as error:
        raise ConfigError(f"model(): {error}") from error


def initial_tensors(
    model: nn.Module,
    task: Task,
    samples: Data,
    test_samples: Data | None,
    *,
    memory: SharedTensors,
    device: torch.device,
    tried: bool,
    on_work: Callable[[], None],
) -> ModelTensors:
    """Try the first steps on ``device``, and leave what travels in ``memory`` as it was before.

    ``tried``: what travels is what these steps change; else what the model alone tells. Raises
    :class:`ConfigError`.
    """
    try:
        by_kind = still_by_kind(model) - set(task.options.moving)
        # What is trained may be large, and lies in the memory meanwhile; buffers are few.
        buffers = {name: one for name, one in tensors_of(model).items() if not _is_parameter(one)}
        untrained = [name for name, one in tensors_of(model).items() if not one.requires_grad]
        trained = ModelTensors(model, {*buffers, *untrained})
        trained.write(memory, 0, NO_ROOT)
        before = {name: one.detach().to("cpu", copy=True) for name, one in buffers.items()}
        model.to(device)
        seen = try_first_steps(model, task, samples, test_samples, on_work)
        still = seen if tried else by_kind
        trained.read(memory, 0, NO_ROOT)
        with torch.no_grad():
            for name, tensor in tensors_of(model).items():
                if name in before and name not in still:
                    tensor.copy_(before[name])
        tensors = ModelTensors(model, still)
    except UnusableModelError as error:
        raise ConfigError(f"model(): {error}") from error
    tensors.write(memory, 0, NO_ROOT)
    return tensors


def untried_tensors(model: nn.Module, task: Task, memory: SharedTensors) -> ModelTensors:
    """The same without any data: no step is tried. Raises :class:`ConfigError`."""
    try:
        tensors = ModelTensors(model, still_by_kind(model) - set(task.options.moving))
    except UnusableModelError as error:
        raise ConfigError(f"model(): {error}") from error
    tensors.write(memory, 0, NO_ROOT)
    return tensors


def _is_parameter(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, nn.Parameter)
