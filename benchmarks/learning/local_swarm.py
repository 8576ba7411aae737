"""A swarm in one process: each peer's own learner, the updates passed as files as the daemon does.

What is measured is learning, so nothing of the network is in it; the bytes are those of the files
that mesh or allreduce would send.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ml.averaging.messages import Contribution, PartResult
from ml.learner import Learner
from ml.opening import Opening, StateReady, Trained
from ml.task.choice import TaskChoice
from protocol.statements.swarm import RoundSettings


@dataclass(frozen=True, slots=True)
class Point:
    """What one round came to. ``bytes_sent``: of all peers and rounds so far."""

    round: int
    accuracy: float
    loss: float
    bytes_sent: int


@dataclass(frozen=True, slots=True)
class Run:
    """Which task, cut how, by which rules."""

    task: str
    builtin: bool
    data_dir: str
    settings: RoundSettings
    peers: int
    rounds: int
    partition: str = "iid"
    shards: int = 0
    """0: as many as peers."""
    first_shard: int = 0
    """The first peer's; the others' follow."""
    seed: int = 1


def opening_of(run: Run, index: int, directory: Path) -> Opening:
    """How peer ``index``'s worker opens the task."""
    return Opening(
        choice=TaskChoice(
            task=run.task,
            builtin=run.builtin,
            shard_index=run.first_shard + index,
            shard_count=run.shards or run.peers,
            data_dir=run.data_dir,
            seed=run.seed,
            partition=run.partition,
        ),
        settings=run.settings,
        state_dir=str(directory / str(index)),
        threads=torch.get_num_threads(),
    )


@contextlib.contextmanager
def learners_of(run: Run) -> Iterator[list[Learner]]:
    """The peers' learners; closed at the end."""
    with tempfile.TemporaryDirectory(prefix="p2pd-learning-") as directory:
        learners = [
            Learner(
                opening_of(run, index, Path(directory)),
            )
            for index in range(run.peers)
        ]
        try:
            yield learners
        finally:
            for learner in learners:
                learner.close()


def train_round(learner: Learner, round_number: int, parts: int = 1) -> Trained:
    """One peer's local steps and its update, in so many parts."""
    return learner.train(round_number, parts=parts)


def run_swarm(run: Run, *, label: str) -> list[Point]:
    """Train ``run``; its settings' exchange is ``mesh`` or ``allreduce``."""
    exchange = _exchange_parts if run.settings.exchange == "allreduce" else _exchange_updates
    points = []
    sent = 0
    with learners_of(run) as learners:
        for round_number in range(1, run.rounds + 1):
            states, round_bytes = exchange(learners, round_number)
            sent += round_bytes
            roots = {state.state.root for state in states}
            assert len(roots) == 1, "peers that averaged the same updates hold other weights"
            points.append(Point(round_number, states[0].leading, states[0].loss, sent))
            print(
                f"{label:28} round {round_number:3}  accuracy {states[0].leading:.4f}"
                f"  loss {states[0].loss:.4f}  sent {sent / 1e6:.2f} MB",
                flush=True,
            )
    return points


def _exchange_updates(learners: list[Learner], round_number: int) -> tuple[list[StateReady], int]:
    """Everyone's update to everyone else. Returns states, and the bytes of all that was sent."""
    updates = [train_round(learner, round_number) for learner in learners]
    contributions = _contributions(updates, 0)
    states = [learner.apply(round_number, contributions) for learner in learners]
    sent = sum(update.updates[0].size_bytes for update in updates) * (len(learners) - 1)
    return states, sent


def _exchange_parts(learners: list[Learner], round_number: int) -> tuple[list[StateReady], int]:
    """Everyone's parts to their owners, and the owners' averages to everyone else; likewise."""
    count = len(learners)
    updates = [train_round(learner, round_number, count) for learner in learners]
    results = []
    sent = 0
    for part, owner in enumerate(learners):
        contributions = _contributions(updates, part)
        average = owner.reduce(round_number, part, count, contributions).update
        results.append(PartResult(part, average.path))
        others = [update for index, update in enumerate(updates) if index != part]
        sent += sum(update.updates[part].size_bytes for update in others)
        sent += average.size_bytes * (count - 1)
    return [learner.apply_parts(round_number, count, results) for learner in learners], sent


def _contributions(updates: list[Trained], part: int) -> tuple[Contribution, ...]:
    return tuple(
        Contribution(f"peer-{index:03}", update.updates[part].path, update.sample_count)
        for index, update in enumerate(updates)
    )
