import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from ml.state.checkpoint import CheckpointStore
from ml.state.late_sync import LateSync
from ml.state.tensor_file import TensorSink
from protocol.errors import ConfigError, VerificationError
from tests.full_disk import report_of
from tests.ml.averaging.saved_states import MANIFEST, filled_with, latest, numbers_in, open_store

ROOT = Path(__file__).parents[3]


def checkpoint_paths(directory: Path) -> list[Path]:
    return sorted(directory.glob("round-*.safetensors"))


def test_empty_directory_has_no_checkpoint(tmp_path: Path) -> None:
    assert open_store(tmp_path / "new").latest() is None


def test_newest_checkpoint_is_found_and_the_last_two_are_kept(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    saved = [store.save(round_number, filled_with(round_number)) for round_number in range(5)]
    store.close()
    state = latest(tmp_path)
    assert (state.round, numbers_in(state), state.blob) == (4, {4.0}, saved[-1].blob)
    assert len(checkpoint_paths(tmp_path)) == 2


def test_as_many_checkpoints_are_kept_as_was_asked_for(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, MANIFEST, keeps_momentum=False, kept=4)
    for round_number in range(7):
        store.save(round_number, filled_with(round_number)).close()
    assert [numbers_in(store.find(number)) for number in (3, 4, 5, 6)] == [{3}, {4}, {5}, {6}]
    loaded = safetensors.numpy.load_file(checkpoint_paths(tmp_path)[0])
    assert {name: np.unique(values).tolist() for name, values in loaded.items()} == {
        "model/bias": [3.0],
        "model/weight": [3.0],
    }
    with pytest.raises(ConfigError, match="no checkpoint of round 2; there are those of 3, 4, 5"):
        store.find(2)


def test_history_is_left_with_a_line_that_was_left(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, MANIFEST, keeps_momentum=False, kept=4)
    for round_number in range(7):
        store.save(round_number, filled_with(round_number)).close()
    store.save(5, filled_with(50)).close()
    store.close()
    assert [path.name[6:14] for path in checkpoint_paths(tmp_path)] == [
        f"{number:08d}" for number in (3, 4, 5)
    ]
    assert numbers_in(latest(tmp_path)) == {50.0}


class HeldSync(LateSync):
    """Syncs nothing before it is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Callable[[str], None]] = []

    def add(self, directory: Path, descriptors: Sequence[int], then: Callable[[str], None]) -> None:
        self.held.append(then)

    def wait(self) -> None:
        while self.held:
            self.held.pop(0)("")


def test_line_is_left_when_its_last_state_is_synced(tmp_path: Path) -> None:
    """What comes after that deletes older states, and would take the new one for such."""
    sync = HeldSync()
    store = CheckpointStore(tmp_path, MANIFEST, keeps_momentum=False, sync=sync)
    for number in range(4):
        store.save(number, filled_with(number)).close()
    assert len(sync.held) == 4
    fill = filled_with(-1)

    def fill_then(writer: TensorSink) -> None:
        assert not sync.held
        fill(writer)

    store.save(1, fill_then).close()
    store.close()
    state = latest(tmp_path)
    assert (state.round, numbers_in(state)) == (1, {-1.0})
    state.close()


def test_damaged_checkpoint_is_not_taken_for_history(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for round_number in (1, 2):
        store.save(round_number, filled_with(round_number)).close()
    checkpoint_paths(tmp_path)[0].write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"no checkpoint of round 1; there are those of 2$"):
        store.find(1)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_checkpoint_is_put_aside_and_the_one_before_it_used(
    tmp_path: Path, damage: str
) -> None:
    store = open_store(tmp_path)
    for round_number in (1, 2):
        store.save(round_number, filled_with(round_number))
    newest = checkpoint_paths(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes(
        {"truncated": bytes(content[:-1]), "flipped": bytes(content), "empty": b""}[damage]
    )
    state = latest(tmp_path)
    assert (state.round, numbers_in(state)) == (1, {1.0})
    assert [path.name for path in tmp_path.glob("*.corrupt")] == [f"{newest.name}.corrupt"]
    assert latest(tmp_path).round == 1


def test_all_checkpoints_damaged_is_as_none(tmp_path: Path) -> None:
    open_store(tmp_path).save(1, filled_with(1))
    checkpoint_paths(tmp_path)[0].write_bytes(b"x")
    assert open_store(tmp_path).latest() is None


@pytest.mark.parametrize(("states", "kept"), [(1, 2), (3, 2), (4.5, 3), (100, 5)])
def test_checkpoints_keep_within_their_quota_but_for_what_a_restart_needs(
    tmp_path: Path, states: float, kept: int
) -> None:
    size_bytes = open_store(tmp_path).layout(9).size_bytes
    store = CheckpointStore(
        tmp_path, MANIFEST, keeps_momentum=False, kept=5, quota_bytes=int(states * size_bytes)
    )
    for round_number in range(9):
        store.save(round_number, filled_with(round_number)).close()
    store.close()
    assert len(checkpoint_paths(tmp_path)) == kept


def test_of_what_waits_for_a_slow_disk_the_newest_alone_is_synced(tmp_path: Path) -> None:
    sync, is_busy, may_go_on = LateSync(), threading.Event(), threading.Event()
    synced: list[str] = []

    def first(problem: str) -> None:
        is_busy.set()
        may_go_on.wait()
        synced.append(f"first{problem}")

    def noting(name: str) -> Callable[[str], None]:
        return lambda problem: synced.append(f"{name}{problem}")

    with (tmp_path / "file").open("wb") as file:
        sync.add(tmp_path, [file.fileno()], first)
        is_busy.wait()
        sync.add(tmp_path, [file.fileno()], noting("second"))
        sync.add(tmp_path, [file.fileno()], noting("third"))
        may_go_on.set()
        sync.wait()
        assert synced == ["first", "third"]
        sync.add(tmp_path, [file.fileno()], noting("fourth"))
        sync.close()
    assert synced == ["first", "third", "fourth"]


def test_state_of_an_unexpected_root_is_not_kept(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.save(1, filled_with(1))
    with pytest.raises(VerificationError, match="state of round 2 has the root"):
        store.save(2, filled_with(2), root=b"r" * 32)
    assert latest(tmp_path).round == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_open_state_survives_the_deletion_of_its_file(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    first = store.save(1, filled_with(1))
    for round_number in (2, 3):
        store.save(round_number, filled_with(round_number))
    store.close()
    assert not Path(first.blob.path).exists()
    assert numbers_in(first) == {1.0}


SAVE_ENDLESSLY = """
import itertools, sys
from pathlib import Path
from tests.ml.averaging.saved_states import filled_with, open_store

store = open_store(Path(sys.argv[1]))
state = store.latest()
for round_number in itertools.count(1 if state is None else state.round + 1):
    def fill(writer):
        print("begun", round_number, flush=True)
        filled_with(round_number)(writer)
        print("filled", round_number, flush=True)
    store.save(round_number, fill).close()
    print("saved", round_number, flush=True)
"""


@pytest.mark.parametrize("word", ["begun", "filled", "saved"])
def test_kill_9_at_any_instant_leaves_a_whole_checkpoint(tmp_path: Path, word: str) -> None:
    saved = 0
    for lives in (1, 4):
        writer = subprocess.Popen(
            [sys.executable, "-c", SAVE_ENDLESSLY, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        seen = 0
        for line in writer.stdout:
            said, number = line.split()
            if said == "saved":
                saved = int(number)
            seen += said == word
            if seen == lives:
                break
        writer.send_signal(signal.SIGKILL)
        rest = writer.communicate()[0]
        assert writer.returncode == -signal.SIGKILL
        # Lines that it wrote before the signal came.
        saved = max(
            [saved, *(int(line.split()[1]) for line in rest.splitlines() if "saved" in line)]
        )
        if saved:
            state = latest(tmp_path)
            assert state.round >= saved
            assert numbers_in(state) == {float(state.round)}
            saved = state.round
        assert not list(tmp_path.glob("*.corrupt"))
    assert saved > 0
    open_store(tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))


ON_A_FULL_DISK = """
import contextlib, json, sys
from pathlib import Path
from tests.ml.averaging.saved_states import filled_with, latest, numbers_in, open_store

directory = Path(sys.argv[1])
store = open_store(directory)
store.save(1, filled_with(1))
ballast = directory / "ballast"
with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
    while True:
        file.write(bytes(4096))
state = store.save(2, filled_with(2))
report = {
    "problem": store.problem,
    "in_memory": sorted(numbers_in(state)),
    "served": len(Path(state.blob.path).read_bytes()) == state.blob.size_bytes,
    "on_disk": latest(directory).round,
    "files": sorted(path.suffix for path in directory.iterdir()),
}
ballast.unlink()
store.save(3, filled_with(3))
report |= {"problem_later": store.problem, "on_disk_later": latest(directory).round}
print(json.dumps(report))
"""


def test_full_disk_pauses_checkpoints_and_nothing_else(tmp_path: Path) -> None:
    assert report_of(ON_A_FULL_DISK, tmp_path, "1m") == {
        "problem": "no checkpoint of round 2: No space left on device",
        "in_memory": [2.0],
        "served": True,
        "on_disk": 1,
        "files": ["", ".safetensors"],
        "problem_later": "",
        "on_disk_later": 3,
    }
