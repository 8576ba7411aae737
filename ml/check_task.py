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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ml.state.manifest import Manifest
from ml.task.load import data_directory, load_task
from ml.task.samples import Samples
from ml.task.shards import Partition
from ml.task.task import Task
from ml.training.first_steps import try_first_steps
from ml.training.model_tensors import manifest_of
from ml.training.round_cost import RoundCost, round_cost
from ml.training.train import evaluate
from p2pd.what_travels import UnusableModelError, still_by_kind, tensors_of
from protocol.errors import ConfigError

EXIT_CONFIG = 78
EVALUATED_SAMPLES = 256
LOOK_THROUGH_S = 5.0


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
    dataset = task.train_dataset(data_dir)
    if Partition.parse(task.suggestion.partition).needs_labels:
        task.labels(dataset)
    samples = _all_of(dataset)
    tests = _all_of(task.test_dataset(data_dir))
    with warnings.catch_warnings():
        # (N, 1) against (N,) makes N by N differences: a loss, but of the wrong thing.
        warnings.filterwarnings("error", message=r"(?s)Using a target size .* different to the")
        still = try_first_steps(model, task, samples, tests)
        manifest = manifest_of(model, still)
        loss, metric = evaluate(model, task, tests.head(EVALUATED_SAMPLES))
    for function, value in (("loss", loss), ("metric", metric)):
        if not math.isfinite(value):
            raise ConfigError(f"task {task.name}: {function}() is {value} on the test data")
    _look_through(task, "train_dataset", samples)
    _look_through(task, "test_dataset", tests)
    cost = round_cost(task, model, manifest, samples, len(tests))
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


def _all_of(dataset: Any) -> Samples:
    return Samples(dataset, np.arange(len(dataset), dtype=np.int64), torch.device("cpu"))


def _look_through(task: Task, function: str, samples: Samples) -> None:
    """Read as many samples as a few seconds allow."""
    until = time.monotonic() + LOOK_THROUGH_S
    for _ in task.batches(function, samples, EVALUATED_SAMPLES):
        if time.monotonic() > until:
            return


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ml.check_task", description=__doc__)
    parser.add_argument("task", metavar="FILE", help="a task file, or a built-in task's name")
    parser.add_argument("--data-dir", default="", help="where the task's data is")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
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
            "cost": asdict(cost),
        }
        print(json.dumps(document))
    else:
        print(f"{manifest.as_text()}\n\n{cost.as_text()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
