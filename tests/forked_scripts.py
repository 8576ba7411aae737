"""People's scripts as forks of one process that has loaded what they import.

PyTorch, and what others have built on it, takes seconds of a core to load at every start of a
script. Tests of how a script's process starts and dies start it as people do. In others a small
process takes its place (tests/run_forked.py): a fork of the server's runs the script, and each of
the two ends with the other.

``python -m tests.forked_scripts SOCKET MODULE…`` is the server.
"""

import contextlib
import importlib
import os
import runpy
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml.fork_server import READY, ForkServer, listen
from p2pd.importing import collector_off
from p2pd.process import end_with_parent
from tests.fork_servers import running
from tests.kept_environment import kept_environment

ROOT = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def forked_scripts(
    directory: Path, modules: Sequence[str], folder: Path = ROOT
) -> Iterator[tuple[str, ...]]:
    """What stands for ``python`` in the command line of a script that imports ``modules``, of which
    some may lie in ``folder``."""
    path = directory / "scripts.sock"
    command = [sys.executable, "-m", "tests.forked_scripts", str(path), *modules]
    found = f"{ROOT}{os.pathsep}{folder}"
    with running(command, {**kept_environment(), "HOME": str(directory), "PYTHONPATH": found}):
        yield sys.executable, str(ROOT / "tests" / "run_forked.py"), str(path)


def run_script() -> None:
    """In a fork: become the script whose words are those of the command line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[:] = sys.argv[3:]  # There are no channel and no lifeline.
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")


def main() -> None:
    """Serve."""
    path, *modules = sys.argv[1:]
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener = listen(Path(path))
    with collector_off():
        for module in modules:
            importlib.import_module(module)
    print(READY, flush=True)
    ForkServer(listener).serve(run_script)


if __name__ == "__main__":
    main()
