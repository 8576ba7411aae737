"""A fork server for the trainers of peers that tests start (ml/training/fork_server.py).

Loading PyTorch is most of what a small swarm costs. Tests of how processes start, are killed and
come back, and of what they cost, have trainers that were started by themselves.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from daemon.host.python_child import child_command
from daemon.worker.fork_server import VARIABLE
from ml.training.fork_server import READY
from tests.kept_environment import kept_environment


@contextlib.contextmanager
def forked_trainers(directory: Path) -> Iterator[dict[str, str]]:
    """What to add to the environment of ``p2pd``."""
    path = directory / "trainers.sock"
    process = subprocess.Popen(
        child_command("ml.training.fork_server", str(path)),
        env={**kept_environment(), "HOME": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{READY}\n"
        yield {VARIABLE: os.fspath(path)}
    finally:
        process.kill()
        process.communicate()
