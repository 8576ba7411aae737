"""The demo's processes: what they say in the end, and that nothing is left of them."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.cli.demo.processes import DemoFailedError, run_child

PRINT_ENVIRONMENT = "import daemon, os; print(daemon.__file__); print(os.nice(0))"
DIE = "import sys; print('\\n'.join(map(str, range(100))), file=sys.stderr); sys.exit(3)"
KILL_ITSELF = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
WITH_GRANDCHILD = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(sleeper.pid, flush=True)
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that is dead and not yet waited for does not."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text().replace(")", " ")
    except (FileNotFoundError, ProcessLookupError):
        return False


async def gone(pid: int) -> None:
    """Return when the process, which was killed, is no more."""
    async with asyncio.timeout(90):
        while is_alive(pid):  # noqa: ASYNC110 - the kernel sets no asyncio.Event
            await asyncio.sleep(0.01)


async def test_child_finds_the_packages_from_anywhere_and_is_nice(tmp_path: Path) -> None:
    arguments = ["-c", f"import os; os.chdir('/'); {PRINT_ENVIRONMENT}"]
    async with run_child("child", arguments, tmp_path, niceness=5) as child:
        place, niceness = (await child.output()).splitlines()
    assert place.endswith("daemon/__init__.py")
    assert int(niceness) >= os.nice(0) + 5


async def test_end_that_was_not_expected_is_told_with_the_end_of_the_log(tmp_path: Path) -> None:
    async with run_child("peer-1", ["-c", DIE], tmp_path) as child:
        with pytest.raises(DemoFailedError, match="peer-1 exited with 3") as failed:
            await child.output()
    assert failed.value.log_tail.splitlines() == [str(number) for number in range(75, 100)]


async def test_a_kill_is_told_by_its_signal(tmp_path: Path) -> None:
    async with run_child("peer-1", ["-c", KILL_ITSELF], tmp_path) as child:
        assert str(await child.ended()) == "peer-1 was killed by SIGKILL"


async def test_child_that_ends_before_its_first_line_is_told_apart_from_a_slow_one(
    tmp_path: Path,
) -> None:
    async with run_child("rendezvous", ["-c", DIE], tmp_path) as child:
        with pytest.raises(DemoFailedError, match="exited with 3"):
            await child.first_line(90.0)
    async with run_child("rendezvous", ["-c", "import time; time.sleep(600)"], tmp_path) as child:
        with pytest.raises(DemoFailedError, match=r"said nothing for 0.05 s"):
            await child.first_line(0.05)


async def test_nothing_that_it_started_outlives_the_block(tmp_path: Path) -> None:
    async with run_child("peer-1", ["-c", WITH_GRANDCHILD], tmp_path) as child:
        grandchild = int(await child.first_line(90.0))
        assert is_alive(grandchild)
    await gone(grandchild)


async def test_cancelling_does_not_leave_it_behind(tmp_path: Path) -> None:
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        async with run_child("peer-1", ["-c", WITH_GRANDCHILD], tmp_path) as child:
            started.set_result(int(await child.first_line(90.0)))
            await child.ended()

    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        running = group.create_task(run())
        grandchild = await started
        running.cancel()
    await gone(grandchild)


def test_child_does_not_run_when_who_started_it_has_ended_already() -> None:
    def printed(parent: int) -> bytes:
        command = [
            sys.executable,
            "-m",
            "daemon.host.mortal_child",
            str(parent),
            "-c",
            "print('ran')",
        ]
        return subprocess.run(command, capture_output=True, timeout=150, check=True).stdout

    assert printed(os.getpid()) == b"ran\n"
    assert printed(os.getppid()) == b""
