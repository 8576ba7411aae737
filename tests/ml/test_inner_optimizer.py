"""The inner optimizer goes on from round to round, over restarts, by the swarm's schedule."""

from pathlib import Path

import pytest
import torch

from ml.check_task import check_task
from ml.task.load import load_task
from ml.training.inner_optimizer import InnerOptimizer
from p2pd.control import TrainingAbandonedError, TrainingControl
from p2pd.messages import Progress
from protocol.errors import ConfigError
from tests.ml.conftest import TINY_TASK, MakeOpening
from tests.ml.running import apply, open_learner, train, training_of
from tests.ml.task.test_task import load
from tests.ml.test_overlap import tensors_of_update

SOURCE = TINY_TASK.read_text().replace("torch.optim.SGD(parameters, lr=0.1, momentum=0.9)", "OPT")
ADAM = SOURCE.replace("OPT", "torch.optim.AdamW(parameters, lr=0.01)")
RAMP = """
def scheduler(optimizer, total_steps):
    global TOTAL
    TOTAL = total_steps
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 + step)
"""
STEPS = 5


def task_file(directory: Path, source: str = ADAM) -> str:
    path = directory / "task.py"
    path.write_text(source)
    return str(path)


def inner_of(learner: object) -> InnerOptimizer:
    inner = training_of(learner)._inner  # type: ignore[arg-type]
    assert inner is not None
    return inner


def steps_of(inner: InnerOptimizer) -> float:
    (optimizer,) = inner._optimizers
    return float(next(iter(optimizer.state.values()))["step"])


def rate_of(inner: InnerOptimizer) -> float:
    return float(inner._optimizers[0].param_groups[0]["lr"])


def test_moments_go_on_from_round_to_round(tmp_path: Path, make_opening: MakeOpening) -> None:
    opening = make_opening(task=task_file(tmp_path), local_unit="steps", local_amount=STEPS)
    learner = open_learner(opening)
    for round_number in (1, 2, 3):
        apply(learner, round_number, [train(learner, round_number)])
    assert steps_of(inner_of(learner)) == 3 * STEPS
    learner.close()


def test_anew_is_another_training_and_keeps_nothing(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    task = task_file(tmp_path)
    roots = set()
    for inner_state in ("keep", "anew"):
        settings = {"local_unit": "steps", "local_amount": STEPS, "inner_state": inner_state}
        learner = open_learner(make_opening(inner_state, task=task, **settings))
        apply(learner, 1, [train(learner, 1)])
        roots.add(apply(learner, 2, [train(learner, 2)]).state.root)
        learner.close()
    assert len(roots) == 2
    assert (tmp_path / "keep" / "trainer").exists()
    assert not (tmp_path / "anew" / "trainer").exists()
    with pytest.raises(ConfigError, match="inner state 'both': write keep or anew"):
        open_learner(make_opening(task=task, inner_state="both"))


def test_restarted_peer_trains_on_as_if_nothing_had_been(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    task = task_file(tmp_path, ADAM + RAMP)
    settings = {"task": task, "local_unit": "steps", "local_amount": STEPS}
    updates = []
    for name, restarts in (("through", False), ("restarted", True)):
        learner = open_learner(make_opening(name, **settings))
        apply(learner, 1, [train(learner, 1)])
        if restarts:
            learner.close()
            learner = open_learner(make_opening(name, **settings))
        updates.append(tensors_of_update(train(learner, 2)))
        assert steps_of(inner_of(learner)) == 2 * STEPS
        learner.close()
    assert all((updates[0][name] == updates[1][name]).all() for name in updates[0])


def test_abandoned_training_leaves_nothing_behind(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    settings = {"task": task_file(tmp_path), "local_unit": "steps", "local_amount": STEPS}
    updates = []
    for name in ("through", "abandoned"):
        learner = open_learner(make_opening(name, **settings))
        apply(learner, 1, [train(learner, 1)])
        if name == "abandoned":
            control = TrainingControl()

            def end(progress: Progress, control: TrainingControl = control) -> None:
                control.abandon()

            with pytest.raises(TrainingAbandonedError):
                learner.train(2, control=control, on_step=end)
        updates.append(tensors_of_update(train(learner, 2)))
        learner.close()
    assert all((updates[0][name] == updates[1][name]).all() for name in updates[0])


def test_damaged_file_is_begun_anew(
    tmp_path: Path, make_opening: MakeOpening, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"task": task_file(tmp_path), "local_unit": "steps", "local_amount": STEPS}
    learner = open_learner(make_opening(**settings))
    apply(learner, 1, [train(learner, 1)])
    learner.close()
    (file,) = (tmp_path / "peer" / "trainer").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    learner = open_learner(make_opening(**settings))
    train(learner, 2)
    assert steps_of(inner_of(learner)) == STEPS
    assert "the inner optimizer begins anew" in caplog.text
    learner.close()


def test_newcomer_begins_at_the_swarms_place_in_the_schedule(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    task = load(tmp_path, ADAM + RAMP)
    model = task.make_model(0)
    inner = InnerOptimizer(model, task, total_steps=None)
    inner.begin(501, STEPS)
    assert rate_of(inner) == pytest.approx(0.01 * (1 + 500 * STEPS))
    assert not inner._optimizers[0].state
    inner.end()


def test_schedule_goes_on_where_a_round_was_cut_short(tmp_path: Path) -> None:
    task = load(tmp_path, ADAM + RAMP)
    model = task.make_model(0)
    inner = InnerOptimizer(model, task)
    inner.begin(1, STEPS)
    task.backward(task.loss(model(torch.randn(6, 8)), torch.arange(6) % 3))
    inner.step()
    inner.end()
    inner.begin(2, STEPS)
    assert rate_of(inner) == pytest.approx(0.01 * (1 + STEPS))


def test_schedule_in_rounds_of_seconds_takes_this_peers_mean(tmp_path: Path) -> None:
    task = load(tmp_path, ADAM + RAMP)
    model = task.make_model(0)
    file = tmp_path / "own" / "inner.pt"
    inner = InnerOptimizer(model, task, file=file)
    inner.begin(1, float("inf"))
    for _ in range(3):
        task.backward(task.loss(model(torch.randn(6, 8)), torch.arange(6) % 3))
        inner.step()
    inner.end()
    inner.settle()
    again = InnerOptimizer(model, task, file=file)
    again.begin(5, float("inf"))
    assert rate_of(again) == pytest.approx(0.01 * (1 + 4 * 3))


def test_schedule_is_told_how_long_the_training_is(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    told = ADAM + RAMP.replace("TOTAL = total_steps", "print('total', total_steps)")
    settings = {"local_unit": "steps", "local_amount": STEPS, "rounds": 7}
    learner = open_learner(make_opening(task=task_file(tmp_path, told), **settings))
    assert inner_of(learner)._total_steps == 7 * STEPS
    learner.close()


def test_several_optimizers_all_move(tmp_path: Path, make_opening: MakeOpening) -> None:
    several = SOURCE.replace(
        "OPT",
        "[torch.optim.SGD(parameters[:2], lr=0.1), torch.optim.AdamW(parameters[2:], lr=0.01)]",
    )
    settings = {"local_unit": "steps", "local_amount": STEPS}
    learner = open_learner(make_opening(task=task_file(tmp_path, several), **settings))
    update = tensors_of_update(train(learner, 1))
    assert update["0.weight"].any()
    assert update["3.weight"].any()
    learner.close()


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("return 1", "scheduler() returned an int, not a torch.optim.lr_scheduler"),
        (
            "return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)",
            "scheduler() returned a ReduceLROnPlateau, not a torch.optim.lr_scheduler that steps",
        ),
        ("return 1 / 0", "scheduler() failed: ZeroDivisionError"),
    ],
)
def test_scheduler_that_cannot_do_is_told_at_check(
    tmp_path: Path, scheduler: str, expected: str
) -> None:
    source = f"{ADAM}\ndef scheduler(optimizer):\n    {scheduler}\n"
    with pytest.raises(ConfigError) as caught:
        check_task(load_task(task_file(tmp_path, source), builtin=False), tmp_path)
    assert str(caught.value).startswith(f"task task.py: {expected}")
