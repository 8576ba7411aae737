"""The built-in tasks reach what the README promises."""

import os
from pathlib import Path

import pytest

from tests.ml.conftest import MakeOpening
from tests.ml.running import open_three, run_rounds

DATA = Path(os.environ.get("P2PD_DATA_DIR", "/nonexistent"))


def test_three_peers_learn_digits_in_five_rounds(make_opening: MakeOpening) -> None:
    learners = open_three(make_opening, task="digits", builtin=True, local_amount=4)
    states = run_rounds(learners, 5)
    assert states[0].accuracy >= 0.96


@pytest.mark.mnist
@pytest.mark.skipif(not (DATA / "MNIST" / "raw").is_dir(), reason="P2PD_DATA_DIR has no MNIST")
def test_three_peers_learn_most_of_mnist_in_one_round(make_opening: MakeOpening) -> None:
    """99 % after five rounds; one tells enough in a shorter time."""
    states = run_rounds(open_three(make_opening, task="mnist", builtin=True), 1)
    assert states[0].accuracy >= 0.96
    assert len({state.state.root for state in states}) == 1
