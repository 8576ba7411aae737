"""``python -m ml.task_check FILE``: try a task with one training step, and print its manifest.

FILE is a task file, or the name of a built-in task. Exit code 78 and the reason on standard error
for a task that cannot be used.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from ml.manifest import Manifest, manifest_of
from ml.samples import Samples
from ml.task import Task
from ml.task_file import data_directory, load_task
from ml.train import LocalWork, evaluate, train
from protocol.errors import ConfigError, WorkerError

EXIT_CONFIG = 78
EVALUATED_SAMPLES = 256


def check_task(task: Task, data_dir: Path) -> Manifest:
    """Train ``task``'s model for a step, evaluate it on some samples, and return its manifest.

    Raises :class:`ConfigError` naming the function that is wrong, :class:`WorkerError` when the
    very first step diverges.
    """
    device = torch.device("cpu")
    model = task.make_model(0)
    manifest = manifest_of(model)
    dataset = task.train_dataset(data_dir)
    samples = Samples(dataset, np.arange(len(dataset), dtype=np.int64), device)
    train(
        model,
        task,
        samples,
        LocalWork("steps", 1),
        0,
        should_finish=lambda: True,
        on_step=lambda report: None,
        clock=time.monotonic,
    )
    dataset = task.test_dataset(data_dir)
    samples = Samples(dataset, np.arange(len(dataset), dtype=np.int64), device)
    evaluate(model, task, samples.head(EVALUATED_SAMPLES))
    return manifest


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ml.task_check", description=__doc__)
    parser.add_argument("task", metavar="FILE", help="a task file, or a built-in task's name")
    parser.add_argument("--data-dir", default="", help="where the task's data is")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    try:
        task = load_task(arguments.task, builtin=arguments.task.isidentifier())
        manifest = check_task(task, data_directory(arguments.data_dir))
    except (ConfigError, WorkerError) as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
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
        }
        print(json.dumps(document))
    else:
        print(manifest.as_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
