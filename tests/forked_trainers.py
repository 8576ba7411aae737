"""A fork server for the trainers of peers that tests start (ml/training/fork_server.py).

Loading PyTorch is most of what a small swarm costs. Tests of how processes start, are killed and
come back, and of what they cost, have trainers that were started by themselves.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from daemon.host.python_child import child_command
from daemon.worker.fork_server import VARIABLE
from ml.training.fork_server import READY
from tests.kept_environment import kept_environment


@contextlib.contextmanager
def forked_trainers(directory: Path) -> Iterator[dict[str, str]]:
    """What to add to the environment of ``p2pd``."""
    path = directory / "trainers.sock"
    command = child_command("ml.training.fork_server", str(path))
    with running(command, {**kept_environment(), "HOME": str(directory)}):
        yield {VARIABLE: os.fspath(path)}


@contextlib.contextmanager
def running(command: Sequence[str], environ: Mapping[str, str]) -> Iterator[None]:
    """A fork server, which has loaded what its forks need."""
    process = subprocess.Popen(
        command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{READY}\n"
        yield
    finally:
        process.kill()
        process.communicate()
