"""The command line as a user runs it, and peers for it to talk to."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 120.0


@dataclass
class CommandLine:
    """Runs ``p2pd`` in an environment of its own."""

    home: Path

    @property
    def state_root(self) -> Path:
        return self.home / ".local" / "state" / "p2pd"

    @property
    def environ(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        return {
            **kept,
            "HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def __call__(
        self, *arguments: str | Path, stdin: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "daemon.cli", *map(str, arguments)],
            cwd=self.home,
            env={**self.environ, **environ},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )


@pytest.fixture
def p2pd(tmp_path: Path) -> CommandLine:
    home = tmp_path / "home"
    home.mkdir()
    return CommandLine(home)


StartPeer = Callable[..., Path]


@pytest.fixture
def start_peer(p2pd: CommandLine) -> Iterator[StartPeer]:
    """Starts a fake peer as a process of its own and returns its state directory."""
    processes: list[subprocess.Popen[str]] = []

    def start(name: str = "peer", kind: str = "healthy") -> Path:
        state_dir = p2pd.state_root / name
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.fake_peer", str(state_dir), kind],
            cwd=ROOT,
            env=p2pd.environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return state_dir

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=START_S)
