"""Learners in this process, and rounds of several of them."""

from pathlib import Path
from typing import Any

import torch

from ml.averaging.averager import Averager
from ml.averaging.messages import Contribution
from ml.learner import Learner
from ml.opening import Opening, StateReady, Trained
from ml.training.local_training import LocalTraining
from ml.training.train import StepReport
from p2pd.control import TrainingControl
from p2pd.messages import Progress
from tests.ml.conftest import MakeOpening


def ignore(report: StepReport | Progress) -> None:
    assert report.step > 0


_open: list[Learner] = []


def open_learner(opening: Opening) -> Learner:
    """One that is closed when the test has ended."""
    learner = Learner(opening)
    _open.append(learner)
    return learner


def close_learners() -> None:
    while _open:
        learner = _open.pop()
        if learner._descriptors:
            learner.close()


def open_three(make_opening: MakeOpening, prefix: str = "peer", **settings: Any) -> list[Learner]:
    return [open_learner(make_opening(f"{prefix} {i}", shard=(i, 3), **settings)) for i in range(3)]


def train(
    learner: Learner, round_number: int, control: TrainingControl | None = None, parts: int = 1
) -> Trained:
    return learner.train(round_number, parts=parts, control=control, on_step=ignore)


def averager_of(learner: Learner) -> Averager:
    assert learner._averager is not None
    return learner._averager


def training_of(learner: Learner) -> LocalTraining:
    assert learner._trainer._opened is not None
    return learner._trainer._opened.training


def model_of(learner: Learner) -> torch.nn.Module:
    """The one that is evaluated, and without overlap trained."""
    assert learner._trainer._opened is not None
    return learner._trainer._opened.tensors.model


def apply(learner: Learner, round_number: int, updates: list[Trained]) -> StateReady:
    contributions = [
        Contribution(f"peer {i}", update.updates[0].path, update.sample_count)
        for i, update in enumerate(updates)
    ]
    return learner.apply(round_number, contributions[::-1])


def run_rounds(learners: list[Learner], rounds: int) -> list[StateReady]:
    states: list[StateReady] = []
    for round_number in range(1, rounds + 1):
        updates = [train(learner, round_number) for learner in learners]
        for update in updates:
            learners[0].check_update(round_number, Path(update.updates[0].path))
        states = [apply(learner, round_number, updates) for learner in learners]
    return states
