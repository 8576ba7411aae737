"""Learners in this process, and rounds of several of them."""

import time
from typing import Any

import torch

from ml.local.train import StepReport, TrainingControl
from ml.worker.learner import Learner
from ml.worker.messages import (
    Apply,
    CheckUpdate,
    Contribution,
    OpenTask,
    StateReady,
    Train,
    Trained,
)
from tests.ml.conftest import MakeOpening

CPU = torch.device("cpu")


def ignore(report: StepReport) -> None:
    assert report.step > 0


def open_learner(opening: OpenTask) -> Learner:
    return Learner(opening, device=CPU, clock=time.monotonic)


def open_three(make_opening: MakeOpening, prefix: str = "peer", **settings: Any) -> list[Learner]:
    return [open_learner(make_opening(f"{prefix} {i}", shard=(i, 3), **settings)) for i in range(3)]


def train(
    learner: Learner, round_number: int, control: TrainingControl | None = None, parts: int = 1
) -> Trained:
    control = control or TrainingControl()
    learner.start_training(control)
    return learner.train(Train(1, round_number, parts), control, ignore)


def apply(learner: Learner, round_number: int, updates: list[Trained]) -> StateReady:
    contributions = [
        Contribution(f"peer {i}", update.updates[0].path, update.sample_count)
        for i, update in enumerate(updates)
    ]
    return learner.apply(Apply(1, round_number, tuple(reversed(contributions))))


def run_rounds(learners: list[Learner], rounds: int) -> list[StateReady]:
    states: list[StateReady] = []
    for round_number in range(1, rounds + 1):
        updates = [train(learner, round_number) for learner in learners]
        for update in updates:
            learners[0].check_update(CheckUpdate(1, update.updates[0].path))
        states = [apply(learner, round_number, updates) for learner in learners]
    return states
