"""``python -m ml.alone --task T --shard I/N --rounds R``: what a peer reaches alone on its shard.

It trains as in a swarm whose only member it is, with the same seeds and settings, and prints a JSON
line for each ``--shard``.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import torch

from ml.averaging.messages import Contribution
from ml.learner import Learner
from ml.opening import Opening, StateReady
from ml.task.choice import TaskChoice
from ml.task.load import load_task
from ml.task.task import settings_from
from ml.training.compiler_on_demand import leave_compiler_until_asked
from p2pd.metrics import finite
from protocol.errors import ConfigError, WorkerError
from protocol.statements.swarm import RoundSettings

EXIT_CONFIG = 78


def train_alone(opening: Opening, rounds: int) -> StateReady:
    """The state after so many rounds with this peer's updates only.

    Raises :class:`ConfigError` and :class:`WorkerError`.
    """
    learner = Learner(opening)
    state = None
    for round_number in range(1, rounds + 1):
        trained = learner.train(round_number)
        own = Contribution("alone", trained.updates[0].path, trained.sample_count)
        state = learner.apply(round_number, [own], is_evaluated=round_number == rounds)
    learner.close()
    if state is None:
        raise ConfigError("--rounds must be 1 or more")
    return state


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ml.alone", description=__doc__)
    parser.add_argument("--task", required=True, help="a built-in task's name, or a task file")
    parser.add_argument("--shard", action="append", required=True, metavar="I/N")
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0, help="the swarm's")
    parser.add_argument("--settings", default="", help="the swarm's, as JSON; else the task's")
    parser.add_argument("--partition", default="", help="how the data is cut; else the task's way")
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    leave_compiler_until_asked()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        for shard in arguments.shard:
            print(json.dumps(_report(arguments, shard)), flush=True)
    except (ConfigError, WorkerError) as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    return 0


def _report(arguments: argparse.Namespace, shard: str) -> dict[str, object]:
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise ConfigError(f"shard {shard!r}: write it as I/N, for example 0/3")
    builtin = arguments.task.isidentifier()
    task = arguments.task if builtin else str(Path(arguments.task).resolve())
    settings = _settings(arguments.settings, task, builtin=builtin)
    choice = TaskChoice(
        task,
        builtin,
        int(index),
        int(count),
        arguments.data_dir,
        arguments.seed,
        arguments.partition or settings.partition,
    )
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="p2pd-solo-") as directory:
        opening = Opening(choice, settings, directory, arguments.threads)
        state = train_alone(opening, arguments.rounds)
    return {
        "schema": 1,
        "shard": shard,
        "rounds": state.round,
        "loss": finite(state.loss),
        "metrics": msgspec.to_builtins(state.metrics),
        "seconds": time.monotonic() - started_s,
    }


def _settings(text: str, task: str, *, builtin: bool) -> RoundSettings:
    """Those of the swarm, without what is about others."""
    try:
        given = settings_from(json.loads(text), "--settings") if text else None
    except json.JSONDecodeError as error:
        raise ConfigError(f"--settings is no JSON: {error}") from error
    settings = given or load_task(task, builtin=builtin).suggestion
    return msgspec.structs.replace(
        settings, exchange="mesh", topology="full", aggregation="mean", evaluate="each"
    )


if __name__ == "__main__":
    sys.exit(main())
