"""Fork servers for the trainers and averagers of peers that tests start (ml/fork_server.py).

Loading PyTorch, and NumPy, is most of what a small swarm costs. Tests of how processes start, are
killed and come back, and of what they cost, have processes that were started by themselves.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from daemon.host.python_child import child_command
from daemon.worker.fork_server import VARIABLE
from daemon.worker.launch import PythonModule
from daemon.worker.program import AVERAGING, TRAINING
from ml.fork_server import READY
from tests.kept_environment import kept_environment

SECRET = "ANY_SECRET"
"""A variable that no averager may see."""


@contextlib.contextmanager
def fork_servers(
    directory: Path, programs: Sequence[PythonModule] = (AVERAGING, TRAINING)
) -> Iterator[dict[str, str]]:
    """What to add to the environment of ``p2pd``."""
    environ = {**kept_environment(), "HOME": str(directory), SECRET: "of who starts it"}
    with contextlib.ExitStack() as stack:
        for program in programs:
            command = child_command("ml.fork_server", str(directory), program.module)
            stack.enter_context(running(command, environ))
        yield {VARIABLE: os.fspath(directory)}


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
