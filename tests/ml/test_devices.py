"""Which device is taken, and what is said of one that is seen and cannot be used."""

from dataclasses import replace

import pytest
import torch

from ml.learner import Learner
from ml.training.devices import choose_device
from tests.ml.conftest import MakeOpening
from tests.ml.running import train

# Torch sees the device "meta" everywhere, and nothing can be read from it.


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


def test_peer_trains_on_the_cpu_and_says_why(make_opening: MakeOpening) -> None:
    learner = Learner(replace(make_opening(), device="meta"))
    assert learner.opened.device == "cpu"
    assert learner.opened.device_problem.startswith("meta cannot be used: ")
    assert train(learner, 1).steps > 0
    learner.close()
