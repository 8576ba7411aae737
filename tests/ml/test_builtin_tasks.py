"""What the built-in task that ships with p2pd reaches; of MNIST tests/system/test_demo.py tells."""

from tests.ml.conftest import MakeOpening
from tests.ml.running import open_three, run_rounds


def test_three_peers_learn_digits_in_five_rounds(make_opening: MakeOpening) -> None:
    learners = open_three(make_opening, task="digits", builtin=True, local_amount=4)
    states = run_rounds(learners, 5)
    assert states[0].accuracy >= 0.96
