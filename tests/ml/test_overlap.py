"""The next round's training begins while this round's updates are under way."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from ml.opening import StateReady, Trained
from ml.training.head_start import HeadStart
from ml.training.train import LocalResult, StepReport
from p2pd.control import TrainingAbandonedError, TrainingControl
from protocol.errors import WorkerError
from tests.ml.conftest import MakeOpening
from tests.ml.running import (
    apply,
    ignore,
    open_learner,
    open_three,
    run_rounds,
    train,
    training_of,
)

RESULT = LocalResult(sample_count=1, steps=1, loss=0.5, seconds=1.0)

Tensors = dict[str, NDArray[Any]]


def head_starts() -> list[threading.Thread]:
    """Those that run now, of all learners."""
    return [one for one in threading.enumerate() if one.name.startswith("head start")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    for thread in head_starts():
        thread.join(10)
        assert not thread.is_alive()


def tensors_of_state(state: StateReady) -> Tensors:
    return safetensors.numpy.load_file(state.state.path)


def tensors_of_update(trained: Trained) -> Tensors:
    return safetensors.numpy.load_file(trained.updates[0].path)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"compression": "int8"},
        {"compression": "topk", "outer_learning_rate": 0.7, "outer_momentum": 0.3},
    ],
    ids=str,
)
def test_peers_learn_and_hold_the_same_weights(
    make_opening: MakeOpening, settings: dict[str, Any]
) -> None:
    states = run_rounds(open_three(make_opening, overlap=True, **settings), 6)
    assert len({state.state.root for state in states}) == 1
    assert states[0].leading > 0.95


def test_same_seeds_and_peers_give_the_same_weights_again(make_opening: MakeOpening) -> None:
    """Whatever of a training is done ahead."""
    first = run_rounds(open_three(make_opening, "first", overlap=True), 4)
    learners = open_three(make_opening, "again", overlap=True)
    for round_number in range(1, 5):
        updates = [train(learner, round_number) for learner in learners]
        assert all(training_of(learner).has_head_start for learner in learners)
        for thread in head_starts():
            thread.join(60)
            assert not thread.is_alive()
        again = [apply(learner, round_number, updates).state.root for learner in learners]
        if round_number == 4:
            assert set(again) == {first[0].state.root}


def test_training_goes_on_from_the_base_as_the_own_update_would_move_it(
    make_opening: MakeOpening,
) -> None:
    """And an update is how far the training moved from there."""
    learner, other, _ = open_three(make_opening, overlap=True, rounds=3)
    states = [tensors_of_state(StateReady(0, learner.opened.state, 0.0))]
    updates = []
    for round_number in (1, 2, 3):
        trained = [train(one, round_number) for one in (learner, other)]
        updates.append(tensors_of_update(trained[0]))
        applied = [apply(one, round_number, trained) for one in (learner, other)]
        states.append(tensors_of_state(applied[0]))
    ended_at = training_of(learner)._tensors.model.state_dict()
    for name in ("0.weight", "3.weight"):
        base, own = states[1][f"model/{name}"], updates[1][name]
        began_from = base - own
        np.testing.assert_allclose(
            ended_at[name].numpy(), began_from - updates[2][name], rtol=1e-4, atol=1e-5
        )


def test_evaluation_is_that_of_the_averaged_model(make_opening: MakeOpening) -> None:
    ahead = open_three(make_opening, "ahead", overlap=True)
    updates = [train(learner, 1) for learner in ahead]
    state = apply(ahead[0], 1, updates)
    plain = open_three(make_opening, "plain")
    expected = apply(plain[0], 1, [train(learner, 1) for learner in plain])
    assert (state.state.root, state.loss, state.leading) == (
        expected.state.root,
        expected.loss,
        expected.leading,
    )


def test_state_from_elsewhere_makes_what_began_void(make_opening: MakeOpening) -> None:
    # A kept inner optimizer would remember round 1, which the fresh one has not trained.
    settings: dict[str, Any] = {"overlap": True, "inner_state": "anew"}
    learner, other, _ = open_three(make_opening, **settings)
    taken = apply(other, 1, [train(other, 1)]).state
    train(learner, 1)
    assert training_of(learner).has_head_start
    learner.load_state(1, taken.path, taken.root)
    assert not training_of(learner).has_head_start
    found = train(learner, 2)
    fresh = open_learner(make_opening("fresh", shard=(0, 3), **settings))
    fresh.load_state(1, taken.path, taken.root)
    assert train(fresh, 2).updates[0].root == found.updates[0].root


def test_update_that_was_made_ahead_is_not_made_again_after_a_restart(
    make_opening: MakeOpening,
) -> None:
    settings = {"local_unit": "seconds", "local_amount": 0.05, "overlap": True}
    learner = open_learner(make_opening(**settings))
    apply(learner, 1, [train(learner, 1)])
    before = train(learner, 2)
    learner.close()
    reopened = open_learner(make_opening(**settings))
    assert train(reopened, 2) == before
    assert apply(reopened, 2, [before]).round == 2


def test_nothing_begins_after_the_last_round(make_opening: MakeOpening) -> None:
    learner = open_learner(make_opening(overlap=True, rounds=1))
    train(learner, 1)
    assert not training_of(learner).has_head_start


def test_who_waits_for_a_head_start_can_end_it_and_sees_its_steps() -> None:
    began = threading.Event()
    reports: list[int] = []

    def run(should_finish: Any, on_step: Any) -> LocalResult:
        began.set()
        while not should_finish():
            on_step(StepReport(1, 0.5, 1.0))
        return RESULT

    head_start = HeadStart(2, run)
    assert began.wait(90)
    control = TrainingControl()

    def on_step(report: StepReport) -> None:
        reports.append(report.step)
        control.finish()

    assert head_start.join(control, on_step) == RESULT
    assert reports


def test_head_start_that_fails_says_why_to_whoever_waits_for_it() -> None:
    def run(should_finish: Any, on_step: Any) -> LocalResult:
        raise WorkerError("training diverged")

    with pytest.raises(WorkerError, match="diverged"):
        HeadStart(2, run).join(TrainingControl(), ignore)


def test_abandoned_head_start_ends() -> None:
    def run(should_finish: Any, on_step: Any) -> LocalResult:
        while not should_finish():
            pass
        return RESULT

    head_start = HeadStart(2, run)
    head_start.abandon()
    with pytest.raises(TrainingAbandonedError):
        head_start.join(TrainingControl(), ignore)
