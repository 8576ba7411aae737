"""The command line as a user runs it, and peers for it to talk to."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec
import pytest

from daemon.cli.documents.page import DOCUMENTS
from tests.cli import fake_peer
from tests.forked import Fork, Place, run_forked, run_p2pd
from tests.kept_environment import kept_environment

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 120.0
COMMAND_S = 150.0


@dataclass
class CommandLine:
    """Runs ``p2pd`` in an environment of its own."""

    home: Path
    more: dict[str, str] = field(default_factory=dict)
    """More of its environment."""
    is_forked: bool = True
    """Whether it is a fork of what has p2pd loaded (tests/forked.py), or starts by itself."""

    @classmethod
    def with_home_in(cls, directory: Path, more: dict[str, str] | None = None) -> Self:
        """One with a new home."""
        home = directory / "home"
        home.mkdir()
        return cls(home, more or {})

    @property
    def state_root(self) -> Path:
        return self.home / ".local" / "state" / "p2pd"

    @property
    def environ(self) -> dict[str, str]:
        return {
            **kept_environment(),
            "HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            **self.more,
        }

    def __call__(
        self, *arguments: str | Path, stdin: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        given = {**self.environ, **environ}
        if self.is_forked:
            place = Place(self.home, given, strict=True)
            done = run_forked(run_p2pd, arguments, place, COMMAND_S, stdin)
        else:
            done = subprocess.run(
                [sys.executable, "-W", "error", "-m", "daemon.cli", *map(str, arguments)],
                cwd=self.home,
                env=given,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=COMMAND_S,
                check=False,
            )
        if "--json" in arguments:
            check_documented([str(word) for word in arguments], done.stdout)
        return done


def check_documented(words: list[str], printed: str) -> None:
    """Each line that a command printed is a document of the manual, field by field."""
    command = " ".join(words[: 2 if words[0] in ("config", "task") else 1])
    kinds = [kind for _, kind, where in DOCUMENTS if where.startswith(f"`p2pd {command} ")]
    assert kinds, f"docs/documents.md does not say what p2pd {command} --json prints"
    for line in printed.splitlines():
        shown = json.loads(line)
        assert any(shown == _through(kind, line) for kind in kinds), f"{command}: {line}"


def _through(kind: type[msgspec.Struct], line: str) -> object:
    """What is left of the document when it is read as one of ``kind``."""
    try:
        return json.loads(msgspec.json.encode(msgspec.json.decode(line, type=kind)))
    except msgspec.ValidationError:
        return None


@pytest.fixture
def p2pd(tmp_path: Path) -> CommandLine:
    return CommandLine.with_home_in(tmp_path)


@pytest.fixture
def trainers_at_once(p2pd: CommandLine, with_forks: dict[str, str]) -> None:
    """The trainers of this test's commands begin at once."""
    p2pd.more.update(with_forks)


StartPeer = Callable[..., Path]


@pytest.fixture
def start_peer(p2pd: CommandLine) -> Iterator[StartPeer]:
    """Starts a fake peer as a process of its own and returns its state directory."""
    forks: list[Fork] = []

    def start(name: str = "peer", kind: str = "healthy") -> Path:
        state_dir = p2pd.state_root / name
        reading, writing = os.pipe()
        with (
            open(os.devnull, "rb") as nothing,
            open(reading, encoding="utf-8") as output,
            open(writing, "wb") as written,
        ):
            streams = (nothing, written, sys.stderr)
            forks.append(
                Fork(fake_peer.main, [state_dir, kind], Place(ROOT, p2pd.environ), streams)
            )
            written.close()
            assert output.readline() == "ready\n"
        return state_dir

    yield start
    for fork in forks:
        fork.terminate()
        assert fork.ended(START_S) is not None
