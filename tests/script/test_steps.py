"""A script's own loop, and what its daemon asks meanwhile: over a real channel and real memory."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from p2pd import Swarm, SwarmError
from p2pd.messages import (
    Abandon,
    Done,
    Evaluate,
    Evaluated,
    Failed,
    Finish,
    Judged,
    Opened,
    Progress,
    Shutdown,
    Train,
    Trained,
    TryOut,
)
from p2pd.metrics import parse_metrics
from p2pd.script.desk import Desk
from p2pd.script.hand import Hand, Measuring
from p2pd.script.ranks import Alone
from tests.script.daemon_side import DaemonSide, filled, root_of, value_of

Join = Callable[..., Swarm]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonSide]:
    side = DaemonSide(tmp_path)
    yield side
    side.close()
    for desk in side.desks:
        desk.leave()


def join(daemon: DaemonSide, model: nn.Module, wait_s: float = 60.0, **options: Any) -> Swarm:
    options.setdefault("measuring", Measuring())
    ranks = options.pop("ranks", Alone())
    desk = Desk(daemon, wait_s=wait_s)
    daemon.desks.append(desk)
    return Swarm(Hand(desk, ranks, model, **options))


def joined(daemon: DaemonSide, model: nn.Module, **options: Any) -> tuple[Swarm, int]:
    """A script in round 1, whose base is all ones; and the number of its request."""
    daemon.open()
    number = daemon.train(1, filled(1.0))
    return join(daemon, model, **options), number


def move(model: nn.Module, by: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by)


def began_elsewhere(daemon: DaemonSide, number: int) -> bool:
    answer = daemon.answer(number)
    assert isinstance(answer, Trained)
    return answer.from_origin


def steps_until_it_is_noticed(swarm: Swarm) -> None:
    """The round's last step at the latest waits for the daemon."""
    for _ in range(3):
        swarm.step(loss=1.0)


def test_round_is_trained_from_its_base_and_what_it_came_to_is_left(daemon: DaemonSide) -> None:
    model = filled(7.0)
    swarm, training = joined(daemon, model, samples=5)
    opened = daemon.answer(1)
    assert isinstance(opened, Opened)
    assert [one[0] for one in opened.tensors] == ["bias", "weight"]
    assert (opened.sample_count, opened.task) == (5, "Linear")
    assert value_of(daemon.result(filled(0.0), 0)) == 7.0, "the model as it was made"
    assert value_of(model) == 1.0, "the base"
    losses = [torch.tensor(2.0, requires_grad=True), torch.tensor(4.0)]
    for loss in losses:
        move(model, 0.5)
        assert not swarm.step(loss=loss, samples=2)
    assert swarm.steps == 2
    daemon.stand(1, waits_for="its average")
    move(model, 0.5)
    stepping = threading.Thread(target=swarm.step, args=(6.0, 2))
    stepping.start()
    trained = daemon.answer(training)
    assert isinstance(trained, Trained)
    assert (trained.round, trained.steps, trained.sample_count, trained.loss) == (1, 3, 5, 4.0)
    assert value_of(daemon.result(filled(0.0), 1)) == 2.5
    daemon.train(2, filled(3.0))
    stepping.join(60)
    assert (value_of(model), swarm.round, swarm.steps) == (3.0, 1, 3)


def test_finish_ends_a_round_after_the_step_in_hand(daemon: DaemonSide) -> None:
    model = filled(0.0)
    swarm, training = joined(daemon, model)
    move(model, 0.25)
    finish = daemon.ask(Finish())
    assert isinstance(daemon.answer(finish), Done)
    daemon.stand(1, waits_for="two more")
    # Nothing follows: the swarm is complete with what there is.
    daemon.stand(0, complete=True)
    swarm.step(loss=2.0, samples=4)
    trained = daemon.answer(training)
    assert isinstance(trained, Trained)
    assert (trained.round, trained.steps, trained.sample_count, trained.loss) == (1, 1, 4, 2.0)
    assert value_of(daemon.result(filled(0.0), 1)) == 1.25


def test_abandoned_training_fails_and_the_next_base_is_loaded(daemon: DaemonSide) -> None:
    model = filled(0.0)
    swarm, training = joined(daemon, model)
    daemon.answer(daemon.ask(Abandon()))
    daemon.train(1, filled(2.0))
    assert swarm.step(loss=1.0)
    assert isinstance(daemon.answer(training), Failed)
    assert (value_of(model), swarm.steps) == (2.0, 0)


def test_script_without_evaluation_says_that_it_has_none(daemon: DaemonSide) -> None:
    daemon.open()
    asked = daemon.ask(Evaluate(1, root_of(1).hex()))
    tried = daemon.ask(TryOut(1))
    daemon.train(1, filled(1.0))
    join(daemon, filled(0.0))
    assert daemon.answer(asked) == Evaluated(None)
    failed = daemon.answer(tried)
    assert isinstance(failed, Failed)
    assert "aggregation" in failed.text


def test_evaluation_of_a_script_is_asked_on_the_state_and_leaves_the_mode(
    daemon: DaemonSide,
) -> None:
    model = filled(0.0).train()
    seen: list[tuple[bool, bool, float]] = []

    def evaluate() -> dict[str, float]:
        seen.append((model.training, torch.is_grad_enabled(), value_of(model)))
        return {"loss": 0.5, "accuracy": 0.75}

    daemon.open()
    daemon.lay(0, filled(4.0))
    asked = daemon.ask(Evaluate(0, root_of(0).hex()))
    training = daemon.ask_training(1)
    swarm = join(daemon, model, measuring=Measuring(evaluate=evaluate))
    assert (seen, value_of(model)) == ([], 4.0), "no training waits for it"
    move(model, 0.5)
    stepping = threading.Thread(target=steps_until_it_is_noticed, args=(swarm,))
    stepping.start()
    assert isinstance(daemon.answer(training), Trained)
    assert daemon.answer(asked) == Evaluated(0.5, [["accuracy", 0.75, "higher", ".1%"]])
    daemon.train(2, filled(5.0))
    stepping.join(60)
    assert seen == [(False, False, 4.0)]
    assert model.training
    assert value_of(daemon.result(filled(0.0), 1)) == 4.5
    assert value_of(model) == 5.0


def test_what_a_script_finds_by_itself_is_passed_on(daemon: DaemonSide) -> None:
    swarm, _ = joined(daemon, filled(0.0))
    swarm.evaluated(loss=0.1, accuracy=0.9)
    assert daemon.said(Judged) == Judged(0, 0.1, [["accuracy", 0.9, "higher", ".1%"]])
    swarm.evaluated(loss=float("nan"))
    assert daemon.said(Judged) == Judged(0, None, [])
    with pytest.raises(SwarmError, match="could not convert"):
        swarm.evaluated(accuracy="good")  # type: ignore[arg-type]  # what is tried
    with pytest.raises(SwarmError, match="no name"):
        swarm.evaluated(**{"a name of two and more words": 0.5})


def test_metrics_of_a_script_have_its_names_and_directions(daemon: DaemonSide) -> None:
    measuring = Measuring(parse_metrics({"rmse": "lower, .2f", "r2": "higher"}))
    swarm, _ = joined(daemon, filled(0.0), measuring=measuring)
    swarm.evaluated(seconds=3, r2=torch.tensor(0.8), rmse=0.31)
    assert daemon.said(Judged) == Judged(
        0,
        None,
        [
            ["rmse", 0.31, "lower", ".2f"],
            ["r2", pytest.approx(0.8), "higher", ".4g"],
            ["seconds", 3.0, "", ".4g"],
        ],
    )


def test_complete_swarm_leaves_its_last_state_in_the_model(daemon: DaemonSide) -> None:
    daemon.open()
    model = filled(0.0)
    daemon.train(6, filled(8.0))
    daemon.ask(Abandon())
    daemon.stand(5, complete=True)
    swarm = join(daemon, model)
    for _ in range(3):  # where the training was seen before it was abandoned
        if not swarm.complete:
            swarm.step(loss=1.0)
    assert (swarm.complete, swarm.round, swarm.peers, swarm.samples) == (True, 5, 3, 500)
    assert value_of(model) == 8.0
    with pytest.raises(SwarmError, match="last round is done"):
        swarm.step(loss=1.0)


def test_training_goes_on_from_what_was_left_over_and_ends_at_the_state(
    daemon: DaemonSide, caplog: pytest.LogCaptureFixture
) -> None:
    """Where left-overs stay, the origin memory holds where a training begins."""
    model = filled(0.0)
    seen: list[float] = []

    def evaluate() -> float:
        seen.append(value_of(model))
        return 0.5

    daemon.settings |= {"local_amount": 1.0}
    swarm, first = joined(daemon, model, measuring=Measuring(evaluate=evaluate))
    assert value_of(model) == 1.0
    stepping = threading.Thread(target=swarm.step, args=(1.0,))
    stepping.start()
    assert began_elsewhere(daemon, first) is False
    daemon.lay(1, filled(20.0))
    daemon.lay_origin(1, filled(23.0))
    asked = daemon.ask(Evaluate(1, root_of(1).hex()))
    assert daemon.answer(asked) == Evaluated(None, [["accuracy", 0.5, "higher", ".1%"]])
    second = daemon.ask(Train(2, root_of(1).hex(), from_origin=True))
    stepping.join(60)
    assert (swarm.round, seen, value_of(model)) == (1, [20.0], 23.0)
    swarm.evaluated(accuracy=0.5)
    assert "not the state of round 1" in caplog.text
    move(model, 2.0)
    stepping = threading.Thread(target=swarm.step, args=(1.0,))
    stepping.start()
    assert began_elsewhere(daemon, second) is True
    assert value_of(daemon.result(filled(0.0), 2)) == 25.0
    daemon.lay(2, filled(30.0))
    daemon.stand(2, complete=True)
    stepping.join(60)
    assert (swarm.complete, swarm.round, value_of(model)) == (True, 2, 30.0)


def test_progress_is_said(daemon: DaemonSide) -> None:
    swarm, _ = joined(daemon, filled(0.0))
    swarm.step(loss=3.0, samples=8)
    progress = daemon.said(Progress)
    assert isinstance(progress, Progress)
    assert (progress.round, progress.step, progress.loss) == (1, 1, 3.0)


def test_script_that_is_told_to_end_ends(daemon: DaemonSide) -> None:
    swarm, _ = joined(daemon, filled(0.0))
    daemon.answer(daemon.ask(Shutdown()))
    with pytest.raises(SystemExit):
        swarm.step(loss=1.0)
    assert daemon.stopped
    with pytest.raises(SwarmError, match="has left"):
        swarm.step(loss=1.0)


def test_script_whose_daemon_is_gone_says_so(daemon: DaemonSide) -> None:
    swarm, _ = joined(daemon, filled(0.0))
    daemon.close()
    with pytest.raises(SwarmError, match="run the script again"):
        steps_until_it_is_noticed(swarm)


def test_waiting_ends_at_its_deadline_and_says_for_what(daemon: DaemonSide) -> None:
    daemon.open()
    daemon.stand(0, waits_for="1 of 2 peers are ready")
    with pytest.raises(SwarmError, match="waiting for: 1 of 2 peers are ready"):
        join(daemon, filled(0.0), wait_s=0.0)


def test_loss_that_is_no_number_fails_the_round_and_the_script(daemon: DaemonSide) -> None:
    swarm, training = joined(daemon, filled(0.0))
    swarm.step(loss=1.0)
    swarm.step(loss=float("inf"))
    with pytest.raises(SwarmError, match="diverged in round 1"):
        swarm.step(loss=1.0)
    failed = daemon.answer(training)
    assert isinstance(failed, Failed)
    assert "diverged" in failed.text


@pytest.mark.parametrize("wrong", [nn.ReLU(), "a model"])
def test_model_that_cannot_be_exchanged_is_told(daemon: DaemonSide, wrong: Any) -> None:
    with pytest.raises(SwarmError, match="model"):
        join(daemon, wrong)


@pytest.mark.parametrize(("inner_state", "kept"), [("keep", 2), ("anew", 0)])
def test_optimizer_goes_on_or_begins_anew_as_the_swarm_says(
    daemon: DaemonSide, inner_state: str, kept: int
) -> None:
    daemon.settings |= {"inner_state": inner_state, "local_amount": 1.0}
    model = filled(0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.5)
    swarm, training = joined(daemon, model, optimizer=optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    stepping = threading.Thread(target=swarm.step, args=(1.0,))
    stepping.start()
    assert isinstance(daemon.answer(training), Trained)
    daemon.train(2, filled(3.0))
    stepping.join(60)
    assert (swarm.round, len(optimizer.state)) == (1, kept)


def test_epochs_need_the_number_of_samples(daemon: DaemonSide) -> None:
    daemon.settings |= {"local_unit": "epochs", "local_amount": 2.0}
    daemon.open()
    with pytest.raises(SwarmError, match="samples=len"):
        join(daemon, filled(0.0))


class OneOfTwo(Alone):
    """The first of two ranks, without the other one."""

    count = 2


@pytest.mark.parametrize("ranks", [Alone(), OneOfTwo()], ids=lambda ranks: f"{ranks.count}")
def test_round_of_epochs_ends_when_all_samples_were_seen_so_often(
    daemon: DaemonSide, ranks: Alone
) -> None:
    daemon.settings |= {"local_unit": "epochs", "local_amount": 2.0}
    swarm, training = joined(daemon, filled(0.0), ranks=ranks, samples=4)
    mine = 4 // ranks.count
    swarm.step(loss=1.0, samples=mine)
    daemon.stand(0, complete=True)
    swarm.step(loss=1.0, samples=mine)
    trained = daemon.answer(training)
    assert isinstance(trained, Trained)
    assert (trained.steps, trained.sample_count) == (2, 4)


@pytest.mark.parametrize(("unit", "expected"), [("epochs", 200 * 4 + 1), ("seconds", None)])
def test_who_comes_in_round_201_is_where_the_schedule_is_after_one_step(
    daemon: DaemonSide, unit: str, expected: int | None
) -> None:
    """In rounds of so many steps, at once."""
    daemon.settings |= {"local_unit": unit, "local_amount": 1000.0 if unit == "seconds" else 2.0}
    daemon.open()
    daemon.train(201, filled(1.0))
    swarm = join(daemon, filled(0.0), samples=4)
    swarm.step(loss=1.0, samples=2)
    first = swarm.steps
    assert first > 200 if expected is None else first == expected
    swarm.step(loss=1.0, samples=2)
    assert swarm.steps == first + 1, "it does not waver"


@pytest.mark.parametrize(("own_samples", "in_a_round"), [(0, 6), (100, 6), (4, 4)])
def test_samples_of_who_comes_late_are_taken_to_be_as_many_a_peer_as_its_own(
    daemon: DaemonSide, own_samples: int, in_a_round: int
) -> None:
    """Of three steps with two samples each; no sample counts twice."""
    daemon.open()
    daemon.stand(200, samples=0)
    daemon.train(201, filled(1.0))
    swarm = join(daemon, filled(0.0), samples=own_samples)
    swarm.step(loss=1.0, samples=2)
    rounds, peers = 200, 3
    assert swarm.samples == rounds * peers * in_a_round
