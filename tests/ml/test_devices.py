"""Which device is taken, and what is said of one that is seen and cannot be used."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch._lazy.ts_backend

from ml.learner import Learner
from ml.training.devices import choose_device
from tests.ml.conftest import TINY_TASK, MakeOpening
from tests.ml.running import open_learner, train

# Torch sees the device "meta" everywhere, and nothing can be read from it. Its device "lazy"
# computes, on this machine's processor, and is as strict as any about what lies elsewhere.
torch._lazy.ts_backend.init()
ONLY_ON_THE_CPU = """
class Shifted(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) + torch.ones(3)

def model():
    return nn.Sequential(nn.Linear(8, 16), Shifted(16, 3))
"""


def test_device_that_is_seen_and_cannot_be_used_is_left_for_the_next() -> None:
    chosen = choose_device("auto", seen=["meta", "cpu"])
    assert chosen.device == torch.device("cpu")
    assert chosen.name == "cpu"
    assert chosen.problem.startswith("meta cannot be used: ")
    assert "\n" not in chosen.problem


def test_device_that_was_asked_for_and_cannot_be_used_is_left_for_the_cpu() -> None:
    chosen = choose_device("meta")
    assert (chosen.name, chosen.problem[:21]) == ("cpu", "meta cannot be used: ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="here it can be used")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "xpu", "mps"])
def test_device_that_this_machine_has_not_is_left_for_the_cpu(name: str) -> None:
    chosen = choose_device(name)
    assert chosen.device.type == "cpu"
    assert chosen.problem.startswith(f"{name} cannot be used: ")


def test_first_choice_needs_no_words() -> None:
    assert choose_device("cpu").problem == ""
    assert choose_device("auto", seen=[]).problem == ""


def test_device_on_which_the_tasks_first_steps_fail_is_left_for_the_cpu(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    assert choose_device("lazy").problem == "", "all but the task works on it"
    path = tmp_path / "own.py"
    path.write_text(TINY_TASK.read_text() + ONLY_ON_THE_CPU)
    learner = open_learner(replace(make_opening(task=str(path)), device="lazy"))
    assert learner.opened.device == "cpu"
    problem = learner.opened.device_problem
    assert problem.startswith("lazy cannot be used for this task: "), problem
    assert "not a lazy tensor" in problem
    assert train(learner, 1).steps > 0


def test_peer_trains_on_the_cpu_and_says_why(make_opening: MakeOpening) -> None:
    learner = Learner(replace(make_opening(), device="meta"))
    assert learner.opened.device == "cpu"
    assert learner.opened.device_problem.startswith("meta cannot be used: ")
    assert train(learner, 1).steps > 0
    learner.close()
