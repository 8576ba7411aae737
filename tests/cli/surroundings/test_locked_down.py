"""Containers with nothing: no home, a user without a name, nowhere to write, a directory that is
gone. One sentence each, that names what to set."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.statements.invite import Invite
from protocol.uri import HostPort, ServerUri
from tests.cli.conftest import ROOT, CommandLine

NOBODY = 54321


AS_NOBODY = ("unshare", "--user", f"--map-user={NOBODY}")
"""With this user's rights, and a number that no account has."""


def run_as_nobody(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AS_NOBODY, sys.executable, "-m", "daemon.cli", *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def says(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One sentence with these words, that exit code, and no traceback."""
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in last


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*AS_NOBODY, "true"], capture_output=True).returncode != 0,
    reason="no user namespaces here",
)
def test_user_without_a_name_and_a_home_makes_no_directory_called_tilde(
    tmp_path: Path,
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    link = str(Invite(b"s" * 32, b"", (ServerUri(b"k" * 32, HostPort("127.0.0.1", 1)),)))
    says(
        run_as_nobody("join", link, cwd=here),
        78,
        "no home directory",
        "HOME",
        "--state-dir",
    )
    assert list(here.iterdir()) == []


def test_working_directory_that_was_deleted_is_told(p2pd: CommandLine) -> None:
    script = (
        "import os, sys, tempfile\n"
        "os.chdir(gone := tempfile.mkdtemp())\n"
        "os.rmdir(gone)\n"
        "from daemon.cli.entry import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    for arguments, code, words in (
        (("status",), 3, ("no p2pd is running here",)),
        (
            ("create", "--task", "my.py", "--rendezvous", f"p2p://{'a' * 52}@127.0.0.1:1"),
            78,
            ("'my.py'", "working directory is gone"),
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=p2pd.home,
            env=p2pd.environ,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        says(done, code, *words)
