"""What TensorBoard gets to see, read back as TensorBoard reads it."""

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ml.averaging.messages import (
    Contribution,
    Neighbour,
    PartResult,
)
from ml.learner import Learner
from ml.opening import Opening, StateReady, Trained
from tests.full_disk import report_of
from tests.ml.conftest import MakeOpening
from tests.ml.running import apply, open_learner, train

ROOT = Path(__file__).parents[3]


def read_scalars(directory: Path) -> dict[str, dict[int, float]]:
    """All values by name and round."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(directory))
    accumulator.Reload()
    return {
        tag: {event.step: event.value for event in accumulator.Scalars(tag)}
        for tag in accumulator.Tags()["scalars"]
    }


@pytest.fixture
def opening(make_opening: MakeOpening, tmp_path: Path) -> Opening:
    return replace(make_opening(), event_dir=str(tmp_path / "runs" / "ada"))


def test_each_round_is_there_with_all_that_is_known_of_it(opening: Opening, tmp_path: Path) -> None:
    learner = open_learner(opening)

    def go_through(round_number: int) -> tuple[Trained, StateReady]:
        trained = train(learner, round_number)
        state = apply(learner, round_number, [trained, trained])
        learner.note_traffic(round_number, 1000 * round_number, 7)
        return trained, state

    go_through(1)
    trained, state = go_through(2)
    found = read_scalars(tmp_path / "runs" / "ada")
    speeds = found.pop("training/samples_per_second")
    assert set(speeds) == {1, 2}
    assert min(speeds.values()) > 0
    assert set(found.pop("round/seconds")) == {2}  # before the first round it waited for others
    assert found["test/loss"][2] == pytest.approx(state.loss)
    assert found["test/accuracy"][2] == pytest.approx(state.leading)
    assert found["training/loss"][2] == pytest.approx(trained.loss)
    assert found["round/contributors"] == {1: 2, 2: 2}
    assert found["round/samples"][2] == 2 * trained.sample_count
    assert found["round/bytes_sent"] == {1: 1000, 2: 2000}
    assert found["round/bytes_received"] == {1: 7, 2: 7}
    assert state.event_problem == ""


def test_contributors_are_told_in_allreduce_and_in_gossip_too(
    make_opening: MakeOpening, tmp_path: Path
) -> None:
    def open_with(exchange: str) -> Learner:
        plain = make_opening(exchange, exchange=exchange)
        return open_learner(replace(plain, event_dir=str(tmp_path / exchange)))

    allreduce = open_with("allreduce")
    path = train(allreduce, 1).updates[0].path
    both = (Contribution("ada", path, 100), Contribution("bob", path, 50))
    reduced = allreduce.reduce(1, 0, 1, both)
    allreduce.apply_parts(1, 1, (PartResult(0, reduced.update.path),))
    found = read_scalars(tmp_path / "allreduce")
    assert (found["round/contributors"], found["round/samples"]) == ({1: 2}, {1: 150})

    gossip = open_with("gossip")
    path = train(gossip, 1).updates[0].path
    gossip.mix(1, path, (Neighbour("bob", path, 0.5),))
    assert read_scalars(tmp_path / "gossip")["round/contributors"] == {1: 2}


def test_restarted_worker_goes_on_beside_what_was_written_before(
    opening: Opening, tmp_path: Path
) -> None:
    for round_number in (1, 2):
        learner = open_learner(opening)
        apply(learner, round_number, [train(learner, round_number)])
        learner.close()
    directory = tmp_path / "runs" / "ada"
    assert len(list(directory.iterdir())) == 2
    assert set(read_scalars(directory)["test/accuracy"]) == {1, 2}


def test_directory_that_cannot_be_written_stops_nothing_and_is_told_once(
    opening: Opening, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "runs"
    in_the_way.write_text("a file")
    learner = open_learner(opening)
    problem = f"no event files in {in_the_way}/ada: Not a directory"
    with caplog.at_level(logging.INFO):
        for round_number in (1, 2, 3):
            state = apply(learner, round_number, [train(learner, round_number)])
            assert state.event_problem == problem
    errors = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors == [problem]
    in_the_way.unlink()
    state = apply(learner, 4, [train(learner, 4)])
    assert state.event_problem == ""
    assert set(read_scalars(in_the_way / "ada")["test/loss"]) == {4}


WITHOUT_THE_PACKAGE = """
import sys
from pathlib import Path
from ml.averaging.event_file import EventFile
from protocol.errors import ConfigError

sys.modules["tensorboard"] = None  # as an import that finds nothing
try:
    EventFile(Path(sys.argv[1]))
except ConfigError as error:
    print(error)
"""


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=150,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.startswith("--tensorboard needs the Python package tensorboard")
    assert done.stdout.endswith("pip install tensorboard\n")


ON_A_FULL_DISK = """
import contextlib, json, sys
from pathlib import Path
from ml.averaging.event_file import EventFile
from tests.ml.averaging.test_event_files import read_scalars

directory = Path(sys.argv[1])
events = EventFile(directory / "events")
events.add(1, {"test/loss": 0.5})
ballast = directory / "ballast"
with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
    while True:
        file.write(bytes(4096))
number = 2
while not events.problem:  # the last block of the file may have room for some more
    events.add(number, {"test/loss": 0.25})
    number += 1
report = {"problem": events.problem.rpartition(": ")[2]}
rounds = list(read_scalars(directory / "events")["test/loss"])
report["whole"] = rounds == list(range(1, number - 1))
ballast.unlink()
events.add(number, {"test/loss": 0.125})
report["problem_later"] = events.problem
report["later"] = number in read_scalars(directory / "events")["test/loss"]
print(json.dumps(report))
"""


def test_full_disk_costs_values_and_no_more(tmp_path: Path) -> None:
    assert report_of(ON_A_FULL_DISK, tmp_path, "64k") == {
        "problem": "No space left on device",
        "whole": True,
        "problem_later": "",
        "later": True,
    }
