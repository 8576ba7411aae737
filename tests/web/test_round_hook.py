"""The user's command after each round: what it is told, and that nothing it does matters."""

import asyncio
import json
import shlex
import sys
from pathlib import Path

import msgspec
import pytest

from daemon.control.history import History
from daemon.control.status import Status
from daemon.web.round_hook import RoundHook
from tests.web.invented import ROUNDS, InventedPeer

ROOT = Path(__file__).resolve().parents[2]


class Growing:
    """A peer whose last two rounds end while the hook watches."""

    def __init__(self) -> None:
        self._peer = InventedPeer(2)
        self.round = ROUNDS - 2
        self.asked_after: list[int] = []
        self.evaluating: set[int] = set()

    def status(self) -> Status:
        return msgspec.structs.replace(self._peer.status(), round=self.round)

    def history(self, after: int) -> History:
        self.asked_after.append(after)
        history = self._peer.history(after)
        history.rounds[:] = [
            msgspec.structs.replace(one, is_evaluating=one.round in self.evaluating)
            for one in history.rounds
            if one.round <= self.round
        ]
        return history


async def test_each_round_is_one_json_line_on_standard_input(tmp_path: Path) -> None:
    file, peer = tmp_path / "rounds", Growing()
    hook = RoundHook(f"cat >> {shlex.quote(str(file))}")
    peer.round = 1
    await hook.tell_rest(peer)
    peer.round = 3
    await hook.tell_rest(peer)
    await hook.tell_rest(peer)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert lines[0]["swarm"] == "handwriting"
    assert len(lines[0]["losses"]) == 3
    assert 0 < lines[0]["accuracy"] < 1
    assert [one["name"] for one in lines[0]["metrics"]] == ["accuracy", "rmse"]


TRACKER = """
import atexit, json, pathlib
said = []
init = lambda **given: said.append(given) or Run()
log = lambda values, step: said.append([values, step])
finish = lambda: None
class Run:
    log, finish = staticmethod(log), staticmethod(finish)
atexit.register(lambda: pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(said)))
"""
"""Notes what it is told in the way that wandb and trackio are."""


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
async def test_examples_pass_each_round_on(tmp_path: Path, tracker: str) -> None:
    (tmp_path / f"{tracker}.py").write_text(TRACKER)
    script = ROOT / "contrib" / f"on_round_{tracker}.py"
    hook = RoundHook(shlex.join(["env", f"PYTHONPATH={tmp_path}", sys.executable, str(script)]))
    peer = Growing()
    peer.round = 1
    await hook.tell_rest(peer)
    given, (values, step) = json.loads((tmp_path / f"{tracker}.json").read_text())
    assert (given["project"], given["name"], step) == ("handwriting", "alice", 1)
    assert values.keys() == {"loss", "updates", "seconds", "accuracy", "rmse", "training_loss"}


async def test_rounds_of_another_line_are_told_though_their_numbers_are_not_new(
    tmp_path: Path,
) -> None:
    file, peer = tmp_path / "rounds", Growing()
    hook = RoundHook(f"cat >> {shlex.quote(str(file))}")
    for peer.round in (4, 2, 3):
        await hook.tell_rest(peer)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3, 4, 3]


async def test_round_is_told_once_it_is_evaluated_or_the_peer_ends(tmp_path: Path) -> None:
    file, peer = tmp_path / "rounds", Growing()
    hook = RoundHook(f"cat >> {shlex.quote(str(file))}")
    peer.evaluating = {2, 3}
    peer.round = 3
    await hook.tell_rest(peer)
    assert [json.loads(line)["round"] for line in file.read_text().splitlines()] == [1]
    peer.evaluating = {3}
    await hook.tell_rest(peer)
    assert [json.loads(line)["round"] for line in file.read_text().splitlines()] == [1, 2]
    await hook.say_farewell(peer)
    told = [json.loads(line)["round"] for line in file.read_text().splitlines()]
    assert told == [1, 2, 3]


async def test_rounds_of_before_are_not_told(tmp_path: Path) -> None:
    file, peer = tmp_path / "rounds", Growing()
    running = asyncio.ensure_future(RoundHook(f"cat >> {shlex.quote(str(file))}").run(peer))
    async with asyncio.timeout(60):
        while not peer.asked_after:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})
    assert peer.asked_after == [ROUNDS - 2]
    assert not file.exists()


@pytest.mark.parametrize(
    ("command", "longest_s", "complaint"),
    [
        ("exit 3", 60.0, "exit code 3 at round 1"),
        ("no-such-command-anywhere 2>&-", 60.0, "exit code 127 at round 1"),
        ("sleep 300", 0.5, "not done with round 1"),
        ("sleep 300 & wait", 0.5, "not done with round 1"),
    ],
)
async def test_a_command_that_fails_or_hangs_is_logged_and_ended(
    command: str, longest_s: float, complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    peer = Growing()
    peer.round = 1
    async with asyncio.timeout(90):
        await RoundHook(command, longest_s=longest_s).tell_rest(peer)
    assert complaint in caplog.text


async def test_a_command_that_reads_nothing_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    peer = Growing()
    peer.round = 1
    await RoundHook("exec <&-; true").tell_rest(peer)
    assert caplog.text == ""


async def test_what_the_command_leaves_running_is_ended(tmp_path: Path) -> None:
    pid_file, peer = tmp_path / "pid", Growing()
    peer.round = 1
    await RoundHook(f"sleep 300 & echo $! > {shlex.quote(str(pid_file))}").tell_rest(peer)
    stat = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    async with asyncio.timeout(60):
        while is_running(stat):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.05)


def is_running(stat: Path) -> bool:
    """Whether the process with this file in /proc has not ended."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
