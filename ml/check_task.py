"""``python -m ml.check_task FILE``: try a task with a few training steps, and print its
manifest and what a round costs.

FILE is a task file, or the name of a built-in task. Exit code 78 and the reason on standard error
for a task that cannot be used.
"""

import argparse
import contextlib
import json
import math
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import nn

from ml.cost import RoundCost
from ml.state.manifest import Manifest
from ml.task.choice import TaskChoice
from ml.task.data import Data, load_shard, load_test_samples
from ml.task.load import data_directory, load_task
from ml.task.samples import Samples
from ml.task.shards import Partition
from ml.task.stream import Stream
from ml.task.task import Task
from ml.training.compiler_on_demand import leave_compiler_until_asked
from ml.training.first_steps import try_first_steps
from ml.training.model_tensors import manifest_of
from ml.training.round_cost import round_cost
from ml.training.train import evaluate
from p2pd.what_travels import UnusableModelError, still_by_kind, tensors_of
from protocol.errors import ConfigError

EXIT_CONFIG = 78
EVALUATED_SAMPLES = 256
LOOK_THROUGH_S = 5.0
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class CheckedTask:
    """A task that can be trained."""

    manifest: Manifest
    cost: RoundCost


def check_task(task: Task, data_dir: Path) -> CheckedTask:
    """Train ``task``'s model for a few steps and evaluate it on some samples: what it is like.

    Raises :class:`ConfigError` naming the function that is wrong.
    """
    model = task.make_model(0)
    try:
        still = still_by_kind(model)
    except UnusableModelError as error:
        raise ConfigError(f"model(): {error}") from error
    manifest_of(model, still)  # what is wrong with it is told before any data load
    _check_reproducible(task, model)
    everything = TaskChoice(task.name, False, 0, 1, str(data_dir), 0)
    samples = load_shard(task, everything, CPU)
    if Partition.parse(task.suggestion.partition).needs_labels:
        task.labels(task.train_dataset(data_dir))
    tests = load_test_samples(task, everything, CPU)
    with warnings.catch_warnings():
        # (N, 1) against (N,) makes N by N differences: a loss, but of the wrong thing.
        warnings.filterwarnings("error", message=r"(?s)Using a target size .* different to the")
        still = try_first_steps(model, task, samples, tests)
        manifest = manifest_of(model, still)
        found = evaluate(model, task, tests.head(EVALUATED_SAMPLES))
    own = {} if hasattr(task.module, "evaluate") else {"loss": found.loss}
    function = "evaluate" if hasattr(task.module, "evaluate") else "metric"
    for name, value in {**own, **found.metrics}.items():
        if not math.isfinite(value):
            place = "loss()" if name == "loss" else f"{function}()"
            raise ConfigError(f"task {task.name}: {place} is {value} on the test data")
    _look_through(task, "train_dataset", samples)
    _look_through(task, "test_dataset", tests)
    test_count = len(tests) if isinstance(tests, Samples) else 0
    cost = round_cost(task, model, manifest, samples, test_count)
    return CheckedTask(manifest, cost)


def _check_reproducible(task: Task, model: nn.Module) -> None:
    """Peers have to make the same initial weights as the founder."""
    others = tensors_of(task.make_model(0))
    for name, tensor in tensors_of(model).items():
        if not torch.equal(tensor, others[name]):
            raise ConfigError(
                f"task {task.name}: model() makes another {name} each time; take random numbers"
                " from torch's default generator, which is seeded before, and seed no other"
            )


def _look_through(task: Task, function: str, samples: Data) -> None:
    """Read as many samples as a few seconds allow."""
    until = time.monotonic() + LOOK_THROUGH_S
    batches = samples.once() if isinstance(samples, Stream) else samples.values(EVALUATED_SAMPLES)
    for _ in task.values(function, batches):
        if time.monotonic() > until:
            return


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ml.check_task", description=__doc__)
    parser.add_argument("task", metavar="FILE", help="a task file, or a built-in task's name")
    parser.add_argument("--data-dir", default="", help="where the task's data is")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    leave_compiler_until_asked()
    try:
        # The task's own output is no part of the document.
        with contextlib.redirect_stdout(sys.stderr):
            task = load_task(arguments.task, builtin=arguments.task.isidentifier())
            checked = check_task(task, data_directory(arguments.data_dir))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    manifest, cost = checked.manifest, checked.cost
    if arguments.json:
        tensors = [
            {"name": one.name, "dtype": one.dtype, "shape": one.shape, "kind": one.kind}
            for one in manifest.tensors
        ]
        document = {
            "schema": 1,
            "task": task.name,
            "file_sha256": task.file_sha256.hex(),
            "manifest_digest": manifest.digest.hex(),
            "parameters": manifest.parameter_count,
            "tensors": tensors,
            "cost": msgspec.to_builtins(cost),
            "text": f"{manifest.as_text()}\n\n{cost.as_text()}",
        }
        print(json.dumps(document))
    else:
        print(f"{manifest.as_text()}\n\n{cost.as_text()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
