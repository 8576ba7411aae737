"""A model of which each rank has a part is one model: what it is, what is written, what is read,
and what its optimizer keeps."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = (ROOT / "tests" / "forked_ranks.py", "--standalone", "--nproc-per-node", "2")


def test_ranks_describe_write_and_read_one_model(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *TORCHRUN, ROOT / "tests" / "script" / "sharded_model.py", tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
