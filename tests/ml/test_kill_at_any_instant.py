"""kill -9 between any two system calls of a peer's life, again and again: nothing is lost by it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import msgspec
import pytest

from ml.opening import Opening
from ml.training.compiler_on_demand import leave_compiler_until_asked
from tests.ml.conftest import MakeOpening
from tests.ml.running import apply, open_learner, train

ROOT = Path(__file__).parents[2]
ROUNDS = 6
LEFT_OUT = 4
"""The round whose average has not this peer's update."""
KILLS = 15
NEVER = 0


def live(opening: Opening, kill_at: int) -> int:
    """Go on until round :data:`ROUNDS` is complete, telling of each state that is there.

    The process is killed when it enters or leaves a system call for the ``kill_at``-th time. The
    number of times is returned.
    """
    count = 0

    def count_calls(frame: FrameType, event: str, called: Any) -> None:
        nonlocal count
        if event.startswith("c_") and getattr(called, "__module__", "") == "posix":
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count_calls)
    learner = open_learner(opening)
    number, root = learner.opened.round, learner.opened.state.root
    print(json.dumps(["opened", number, root.hex()]), flush=True)
    while number < ROUNDS:
        number += 1
        update = train(learner, number)
        state = apply(learner, number, [] if number == LEFT_OUT else [update])
        print(json.dumps(["saved", number, state.state.root.hex()]), flush=True)
    learner.close()
    sys.setprofile(None)
    return count


def in_a_child(life: Callable[[], int]) -> None:
    """A fork: loading torch anew for each life would take a minute."""
    pid = os.fork()
    if pid == 0:
        print(json.dumps(["ended", life(), ""]), flush=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, -signal.SIGKILL)


def main() -> None:
    """What the process below runs: each line that it reads asks for lives in one directory."""
    leave_compiler_until_asked()
    for line in sys.stdin:
        opening, kill_at = json.loads(line)
        request = msgspec.convert(opening, Opening)
        for at in kill_at:
            print(json.dumps(["begun", at, ""]), flush=True)
            in_a_child(partial(live, request, at))
        print(json.dumps(["over", 0, ""]), flush=True)


Told = list[tuple[str, int, str]]
RunLives = Callable[[Opening, list[int]], list[Told]]


@pytest.fixture(scope="module")
def run_lives() -> Iterator[RunLives]:
    """What each life told, one after the other in the same directory. One process has loaded torch
    for all of them."""
    script = "from tests.ml.test_kill_at_any_instant import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        asked, answers = process.stdin, process.stdout
        assert asked is not None
        assert answers is not None

        def run(opening: Opening, kill_at: list[int]) -> list[Told]:
            print(json.dumps([msgspec.to_builtins(opening), kill_at]), file=asked, flush=True)
            lives: list[Told] = []
            for line in answers:
                word, number, root = json.loads(line)
                if word == "over":
                    return lives
                if word == "begun":
                    lives.append([])
                else:
                    lives[-1].append((word, number, root))
            raise AssertionError(f"it ended with {process.wait()}")

        yield run
        asked.close()
        assert process.wait() == 0


@pytest.mark.parametrize(
    "chosen",
    [{"compression": "topk"}, {"compression": "topk", "fragments": 2, "left_over": "stay"}],
    ids=str,
)
def test_peer_killed_again_and_again_comes_to_the_same_weights_as_one_that_is_not(
    make_opening: MakeOpening, run_lives: RunLives, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    settings = {"outer_learning_rate": 0.7, "outer_momentum": 0.6} | chosen
    (undisturbed,) = run_lives(make_opening("undisturbed", **settings), [NEVER])
    expected = {number: root for word, number, root in undisturbed if word != "ended"}
    assert list(expected) == list(range(ROUNDS + 1))
    (calls,) = (number for word, number, _ in undisturbed if word == "ended")

    chance = Random(1)
    kill_at = [chance.randrange(1, calls // 2) for _ in range(KILLS)]
    opening = replace(
        make_opening("disturbed", **settings),
        kept_checkpoints=3,
        event_dir=str(tmp_path / "events"),
    )
    *killed, last = run_lives(opening, [*kill_at, NEVER])
    newest = 0
    for told in (*killed, last):
        for word, number, root in told:
            if word == "opened":
                assert number >= newest, "a round that was complete is lost"
            if word != "ended":
                newest = number
                assert root == expected[number]
    assert sum(told[-1][0] != "ended" if told else True for told in killed) >= KILLS // 2
    assert last[-1][0] == "ended"
    assert newest == ROUNDS
    names = [path.name for path in (tmp_path / "disturbed").rglob("*") if path.is_file()]
    assert not [name for name in names if name.startswith(".") or name.endswith(".corrupt")]
