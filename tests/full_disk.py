"""Programs on a disk that has little room: a small tmpfs in a mount namespace of their own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM_S = 120.0


def report_of(program: str, directory: Path, size: str) -> Any:
    """What a Python program prints as JSON; ``size`` (as of mount: 64k, 1m) is all the room in
    ``directory``, which is its only argument.

    Skips the test where no mount namespaces can be made.
    """
    unshare = shutil.which("unshare")
    mount = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
    alone = [unshare or "unshare", "--mount", "--map-root-user", "sh", "-c", mount, str(directory)]
    if unshare is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    done = subprocess.run(
        [*alone, sys.executable, "-c", program, str(directory)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PROGRAM_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
