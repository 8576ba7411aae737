"""In a swarm with overlap a script's next round begins while the last one's updates travel."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from p2pd import Swarm
from p2pd.messages import Evaluate, Evaluated, Replaced, Trained
from p2pd.script.desk import Desk
from p2pd.script.hand import Hand, Measuring
from p2pd.script.ranks import Alone
from tests.script.daemon_side import DaemonSide, filled, root_of, value_of

STEPS = 3
WAIT_S = 120.0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonSide]:
    side = DaemonSide(tmp_path)
    side.settings |= {"overlap": True, "local_amount": float(STEPS)}
    yield side
    side.close()
    for desk in side.desks:
        desk.leave()


def joined(daemon: DaemonSide, model: nn.Module, **options: Any) -> tuple[Swarm, int]:
    """A script in round 1, whose base is all tens; and the number of its request."""
    daemon.open()
    number = daemon.train(1, filled(10.0))
    desk = Desk(daemon, wait_s=WAIT_S)
    daemon.desks.append(desk)
    measuring = options.pop("measuring", Measuring())
    return Swarm(Hand(desk, Alone(), model, measuring=measuring, **options)), number


def take_steps(swarm: Swarm, model: nn.Module, count: int = STEPS) -> list[bool]:
    """Each moves the model by one."""
    ended = []
    for _ in range(count):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        ended.append(swarm.step(loss=1.0))
    return ended


def trained_by(daemon: DaemonSide, number: int) -> Trained:
    answer = daemon.answer(number)
    assert isinstance(answer, Trained)
    return answer


def wait_asked(daemon: DaemonSide) -> None:
    """Return once the script's end has the last request, which it looks at in its next step."""
    end = daemon.desks[0].end
    asked = threading.Event()
    for _ in range(int(WAIT_S * 100)):
        if end.is_asked:
            return
        asked.wait(0.01)
    raise AssertionError("the request does not come")


def test_round_ends_without_waiting_and_the_next_is_trained_meanwhile(daemon: DaemonSide) -> None:
    model = filled(0.0)
    swarm, first = joined(daemon, model)
    assert take_steps(swarm, model) == [False, False, True]
    assert not trained_by(daemon, first).from_origin
    assert value_of(daemon.result(filled(0.0), 1)) == 13.0
    assert (value_of(model), swarm.round, swarm.steps) == (13.0, 1, STEPS), "its own model"
    take_steps(swarm, model, 2)
    second = daemon.train(2, filled(20.0))
    # The third step was the last one that could be made ahead: now there is a base for it.
    assert take_steps(swarm, model, 1) == [True]
    done = trained_by(daemon, second)
    assert (done.round, done.steps, done.from_origin) == (2, STEPS, True)
    assert value_of(daemon.origin_of(filled(0.0), 2)) == 13.0
    assert value_of(daemon.result(filled(0.0), 2)) == 16.0
    assert value_of(model) == 23.0, "the base as the own update would move it"
    third = daemon.train(3, filled(30.0))
    take_steps(swarm, model)
    assert trained_by(daemon, third).from_origin
    assert value_of(daemon.origin_of(filled(0.0), 3)) == 23.0
    assert value_of(daemon.result(filled(0.0), 3)) == 26.0
    assert value_of(model) == 33.0


def test_training_that_runs_becomes_the_one_that_is_asked_for(daemon: DaemonSide) -> None:
    model = filled(0.0)
    swarm, _ = joined(daemon, model)
    take_steps(swarm, model)
    second = daemon.train(2, filled(20.0))
    wait_asked(daemon)
    assert take_steps(swarm, model) == [False, False, True]
    assert trained_by(daemon, second).steps == STEPS


def test_state_is_evaluated_between_two_steps_and_the_training_goes_on(
    daemon: DaemonSide,
) -> None:
    model = filled(0.0)
    seen: list[float] = []

    def evaluate() -> float:
        seen.append(value_of(model))
        return 0.5

    swarm, _ = joined(daemon, model, measuring=Measuring(evaluate=evaluate))
    take_steps(swarm, model)
    daemon.lay(1, filled(20.0))
    asked = daemon.ask(Evaluate(1, root_of(1).hex()))
    wait_asked(daemon)
    assert take_steps(swarm, model, 1) == [False]
    assert daemon.answer(asked) == Evaluated(None, [["accuracy", 0.5, "higher", ".1%"]])
    assert (seen, value_of(model)) == ([20.0], 14.0)
    second = daemon.ask_training(2)
    take_steps(swarm, model, 2)
    assert trained_by(daemon, second).from_origin
    assert value_of(daemon.origin_of(filled(0.0), 2)) == 13.0


@pytest.mark.parametrize("number", [2, 5])
def test_state_from_elsewhere_makes_what_began_void(daemon: DaemonSide, number: int) -> None:
    model = filled(0.0)
    swarm, _ = joined(daemon, model)
    take_steps(swarm, model)
    daemon.lay(number - 1, filled(50.0))
    daemon.ask(Replaced())
    training = daemon.ask_training(number)
    wait_asked(daemon)
    assert take_steps(swarm, model, 1) == [True]
    assert (value_of(model), swarm.round, swarm.steps) == (
        50.0,
        number - 1,
        (number - 1) * STEPS,
    )
    take_steps(swarm, model)
    assert not trained_by(daemon, training).from_origin
    assert value_of(daemon.result(filled(0.0), number)) == 53.0


def test_last_round_is_waited_for(daemon: DaemonSide) -> None:
    daemon.settings |= {"rounds": 1}
    model = filled(0.0)
    swarm, _ = joined(daemon, model)
    take_steps(swarm, model, 2)
    daemon.lay(1, filled(20.0))
    daemon.stand(1, complete=True)
    assert take_steps(swarm, model, 1) == [True]
    assert swarm.complete
    assert value_of(model) == 20.0
