"""What the built-in task that ships with p2pd reaches; of MNIST tests/system/test_demo.py tells."""

import hashlib

from ml.task.builtin.digits import load_digits
from tests.ml.conftest import MakeOpening
from tests.ml.running import open_three, run_rounds


def test_three_peers_learn_digits_in_five_rounds(make_opening: MakeOpening) -> None:
    learners = open_three(make_opening, task="digits", builtin=True, local_amount=4)
    states = run_rounds(learners, 5)
    assert states[0].leading >= 0.96


def test_digits_are_those_of_scikit_learn_bit_for_bit() -> None:
    from sklearn import datasets  # takes seconds to load

    pixels, labels = load_digits()
    known_pixels, known_labels = datasets.load_digits(return_X_y=True)
    assert (pixels == known_pixels).all()
    assert (labels == known_labels).all()
    assert (
        hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
        == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
    )
