"""The user's command after each round: what it is told, and that nothing it does matters."""

import asyncio
import json
import shlex
import time
from pathlib import Path

import pytest

from daemon.control.history import History
from daemon.control.status import Status
from daemon.web.round_hook import RoundHook
from tests.web.invented import ROUNDS, InventedPeer


class Growing:
    """A peer whose last two rounds end while the hook watches."""

    def __init__(self) -> None:
        self._peer = InventedPeer(2)
        self.round = ROUNDS - 2

    def status(self) -> Status:
        return self._peer.status()

    def history(self, after: int) -> History:
        history = self._peer.history(after)
        history.rounds[:] = [one for one in history.rounds if one.round <= self.round]
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


async def test_rounds_of_before_are_not_told(tmp_path: Path) -> None:
    file, peer = tmp_path / "rounds", Growing()
    running = asyncio.ensure_future(RoundHook(f"cat >> {shlex.quote(str(file))}").run(peer))
    await asyncio.sleep(0.3)
    running.cancel()
    await asyncio.wait({running})
    assert not file.exists()


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("exit 3", "exit code 3 at round 1"),
        ("no-such-command-anywhere 2>&-", "exit code 127 at round 1"),
        ("sleep 300", "not done with round 1"),
        ("sleep 300 & wait", "not done with round 1"),
    ],
)
async def test_a_command_that_fails_or_hangs_is_logged_and_ended(
    command: str, complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    peer = Growing()
    peer.round = 1
    async with asyncio.timeout(60):
        await RoundHook(command, longest_s=0.5).tell_rest(peer)
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
    deadline = time.monotonic() + 30
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
