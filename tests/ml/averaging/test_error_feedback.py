"""What is left over of updates, through the death of the process at the wrong moment."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ml.averaging.error_feedback import Block, ErrorFeedback
from ml.state.manifest import Manifest, TensorSpec
from ml.state.tensor_file import TensorSink
from ml.state.tensor_store import Fill

SPEC = TensorSpec("w", "F32", (4,), "parameter")
MANIFEST = Manifest((SPEC,))


class Life:
    """Of a process that holds left-overs; it may end without closing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._held: list[ErrorFeedback] = []

    def opened(self, round_number: int) -> ErrorFeedback:
        feedback = ErrorFeedback(self.directory, MANIFEST, 1.0, round_number)
        self._held.append(feedback)
        return feedback

    def end(self) -> None:
        for feedback in self._held:
            feedback.close()


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    one = Life(tmp_path)
    yield one
    one.end()


def filled_with(number: float) -> Fill:
    def fill(writer: TensorSink) -> None:
        writer.write("w", 0, np.full(4, number, np.float32))

    return fill


def left_over(feedback: ErrorFeedback) -> float:
    (number,) = set(feedback.add_to(SPEC, 0, np.zeros(4, np.float32)).tolist())
    return float(number)


def with_one_left_over(life: Life) -> ErrorFeedback:
    """In round 1's state, and an update of round 2 under way that leaves over twice as much."""
    feedback = life.opened(0)
    feedback.write_pending(1, filled_with(1.0))
    feedback.prepare(1, committed=True)
    feedback.settle(1)
    feedback.write_pending(2, filled_with(2.0))
    return feedback


def not_averaged(number: float) -> list[Block]:
    """The last two numbers of the update, which were as large as that."""
    sent = np.full(4, number, np.float32)
    return [(SPEC, 0, 2, None), (SPEC, 2, 4, lambda spec, start, stop: sent[start:stop])]


@pytest.mark.parametrize(("committed", "expected"), [(True, 2.0), (False, 1.0)])
def test_an_update_that_was_averaged_replaces_what_was_left_over(
    life: Life, committed: bool, expected: float
) -> None:
    feedback = with_one_left_over(life)
    feedback.prepare(2, committed=committed)
    feedback.settle(2)
    assert left_over(feedback) == expected
    assert left_over(life.opened(2)) == expected
    assert [path.name for path in life.directory.iterdir()] == ["residual-00000002.safetensors"]


@pytest.mark.parametrize(
    ("committed", "state", "expected"),
    [(True, 1, 1.0), (True, 2, 2.0), (False, 1, 1.0), (False, 2, 1.0)],
)
def test_death_beside_the_new_state(
    life: Life, committed: bool, state: int, expected: float
) -> None:
    """Before that has its name, and after."""
    with_one_left_over(life).prepare(2, committed=committed)
    assert left_over(life.opened(state)) == expected


def test_death_before_the_new_state_leaves_the_update_under_way(life: Life) -> None:
    with_one_left_over(life).prepare(2, committed=False)
    again = life.opened(1)
    assert again.take_pending(2)
    again.prepare(2, committed=True)
    again.settle(2)
    assert left_over(again) == left_over(life.opened(2)) == 2.0


def test_death_beside_a_state_to_which_this_peer_sent_nothing(life: Life) -> None:
    feedback = life.opened(0)
    feedback.write_pending(1, filled_with(1.0))
    feedback.prepare(1, committed=True)
    feedback.settle(1)
    assert left_over(life.opened(4)) == 1.0


def test_of_several_tries_of_a_round_the_last_one_counts(life: Life) -> None:
    feedback = with_one_left_over(life)
    feedback.prepare(2, committed=True, given_back=not_averaged(5.0))
    feedback.prepare(2, committed=False)
    feedback.prepare(2, committed=True, given_back=not_averaged(5.0))
    feedback.prepare(2, committed=True)
    assert left_over(life.opened(2)) == 2.0
    feedback.settle(2)
    assert left_over(feedback) == left_over(life.opened(2)) == 2.0


def test_what_was_not_averaged_after_all_is_left_over_too(life: Life) -> None:
    feedback = with_one_left_over(life)
    for _ in range(2):  # Also when the round is tried again.
        feedback.prepare(2, committed=True, given_back=not_averaged(5.0))
    feedback.settle(2)
    for one in (feedback, life.opened(2)):
        assert one.add_to(SPEC, 0, np.zeros(4, np.float32)).tolist() == [2, 2, 7, 7]
