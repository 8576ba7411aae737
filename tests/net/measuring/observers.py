"""`p2pd join --observe` and other commands as real processes on this machine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.forked import Place, run_forked, run_p2pd

ROOT = Path(__file__).parents[3]
START_S = 90.0
COMMAND_S = 120.0


def p2pd(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return run_forked(run_p2pd, arguments, Place(ROOT, dict(os.environ)), COMMAND_S)


def document(*arguments: str | Path) -> dict[str, Any]:
    """What a command prints with --json; it has to succeed."""
    done = p2pd(*arguments, "--json")
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def until(condition: Callable[[], bool], within_s: float = START_S) -> None:
    """Return as soon as another process is so."""
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


@contextmanager
def running(log: Path, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """A command that runs until it is told to stop, and then ends well."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon.cli", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        try:
            yield process
            process.terminate()
            assert process.wait(90) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
