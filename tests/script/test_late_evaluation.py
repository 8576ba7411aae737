"""When a trainer's end evaluates, over a real socket pair: where no training waits for it."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pd.control import TrainingAbandonedError, TrainingControl
from p2pd.messages import (
    SUPERSEDED,
    Done,
    Evaluate,
    Evaluated,
    Failed,
    Finish,
    Open,
    Opened,
    Replaced,
    Train,
    Trained,
    Tried,
    TryOut,
)
from p2pd.trainer import Trainer, TrainerEnd
from tests.script.daemon_side import TIMEOUT_S, DaemonSide, root_of


class _EndedError(BaseException):
    """Ends the serving thread."""


class NotingTrainer(Trainer):
    """Does nothing, and notes when it was asked to."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.is_training, self.has_taken = threading.Event(), threading.Event()
        self.goes_on = threading.Event()
        """Unset, it stands still where its training has ended and is not answered yet."""
        self.goes_on.set()

    def open(self, request: Open) -> Opened:
        """This is how a test ends it."""
        raise _EndedError

    def train(self, request: Train, control: TrainingControl) -> Trained:
        """Trains until told to finish."""
        self.is_training.set()
        until = time.monotonic() + TIMEOUT_S
        while not control.should_finish():
            assert time.monotonic() < until
            time.sleep(0.001)
        self.done.append(f"trained {request.round}")
        return Trained(request.round, 1, 1, 0.0, 0.0)

    def take_base(self, request: Evaluate) -> None:
        """Notes it."""
        self.done.append(f"took {request.round}")
        self.has_taken.set()
        assert self.goes_on.wait(TIMEOUT_S)

    def evaluate(self, request: Evaluate) -> Evaluated:
        """The round is its quality."""
        self.done.append(f"evaluated {request.round}")
        return Evaluated(float(request.round))

    def abandon(self) -> None:
        """Notes it."""
        self.done.append("abandoned")

    def try_out(self, request: TryOut) -> Tried:
        """Not asked here."""
        raise NotImplementedError

    def failure(self, error: Exception) -> Failed | None:
        """A training that was abandoned, and nothing else."""
        return Failed("internal", "") if isinstance(error, TrainingAbandonedError) else None

    def end(self, reason: str) -> None:
        """The test's process goes on."""


@pytest.fixture
def trainer() -> NotingTrainer:
    return NotingTrainer()


@pytest.fixture
def daemon(tmp_path: Path, trainer: NotingTrainer) -> Iterator[DaemonSide]:
    side = DaemonSide(tmp_path)
    end = TrainerEnd(side.connect())

    def serve() -> None:
        with contextlib.suppress(_EndedError):
            end.serve(trainer)

    thread = threading.Thread(target=serve)
    thread.start()
    yield side
    side.open()
    thread.join(TIMEOUT_S)
    side.close()
    end.memories.close()


def evaluate(number: int) -> Evaluate:
    return Evaluate(number, root_of(number).hex())


def test_state_is_evaluated_once_the_next_round_is_trained(
    daemon: DaemonSide, trainer: NotingTrainer
) -> None:
    number = daemon.ask_training(1)  # It holds the trainer until the next one is there.
    trainer.is_training.wait(TIMEOUT_S)
    asked = daemon.ask(evaluate(0))
    following = daemon.ask_training(2)
    assert isinstance(daemon.answer(number), Failed), "the next training took its turn"
    daemon.ask(Finish())
    assert isinstance(daemon.answer(following), Trained)
    assert daemon.answer(asked) == Evaluated(0.0)
    assert trainer.done == ["trained 2", "took 0", "evaluated 0"]


def test_state_is_evaluated_when_nothing_else_is_asked(
    daemon: DaemonSide, trainer: NotingTrainer
) -> None:
    assert daemon.answer(daemon.ask(evaluate(3))) == Evaluated(3.0)


def test_evaluation_ends_no_training(daemon: DaemonSide, trainer: NotingTrainer) -> None:
    number = daemon.ask_training(1)
    trainer.is_training.wait(TIMEOUT_S)
    asked = daemon.ask(evaluate(0))
    daemon.ask(Finish())
    assert isinstance(daemon.answer(number), Trained)
    assert daemon.answer(asked) == Evaluated(0.0)


def test_training_on_an_older_state_is_void(daemon: DaemonSide, trainer: NotingTrainer) -> None:
    number = daemon.ask_training(1)
    trainer.is_training.wait(TIMEOUT_S)
    asked = daemon.ask(evaluate(1))
    assert isinstance(daemon.answer(number), Failed)
    assert daemon.answer(asked) == Evaluated(1.0)


def test_of_two_states_that_wait_the_later_one_is_evaluated(
    daemon: DaemonSide, trainer: NotingTrainer
) -> None:
    number = daemon.ask_training(3)
    trainer.is_training.wait(TIMEOUT_S)
    first, second = daemon.ask(evaluate(1)), daemon.ask(evaluate(2))
    daemon.ask(Finish())
    assert isinstance(daemon.answer(number), Trained)
    assert daemon.answer(first) == Failed("internal", SUPERSEDED)
    assert daemon.answer(second) == Evaluated(2.0)


def test_state_that_was_taken_is_evaluated_though_the_next_one_came_before_the_trainer_looked(
    daemon: DaemonSide, trainer: NotingTrainer
) -> None:
    trainer.goes_on.clear()
    first, number = daemon.ask(evaluate(0)), daemon.ask_training(1)
    trainer.is_training.wait(TIMEOUT_S)
    daemon.ask(Finish())
    assert trainer.has_taken.wait(TIMEOUT_S)
    # The machine is so busy that the round ends before the trainer is given time again.
    second, following = daemon.ask(evaluate(1)), daemon.ask_training(2)
    assert daemon.answer(daemon.ask(Finish())) == Done()
    trainer.goes_on.set()
    assert isinstance(daemon.answer(number), Trained)
    assert daemon.answer(first) == Evaluated(0.0)
    assert isinstance(daemon.answer(following), Trained)
    assert daemon.answer(second) == Evaluated(1.0)
    assert trainer.done == [
        "trained 1",
        "took 0",
        "evaluated 0",
        "trained 2",
        "took 1",
        "evaluated 1",
    ]


def test_base_that_was_replaced_voids_what_has_begun_ahead(
    daemon: DaemonSide, trainer: NotingTrainer
) -> None:
    assert daemon.answer(daemon.ask(Replaced())) == Done()
    assert trainer.done == ["abandoned"]
