"""``p2pd rendezvous`` as systemd runs it: readiness, end, and under the unit's memory rule."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from protocol.uri import ServerUri
from tests.systemd.service import ROOT, as_service

WAIT_S = 30.0

PR_SET_MDWE = 65
PR_MDWE_REFUSE_EXEC_GAIN = 1

# prctl(2), since Linux 6.3: what MemoryDenyWriteExecute= asks for, and it is inherited.
DENY_WRITE_EXECUTE = f"""
import ctypes, os, sys
if ctypes.CDLL(None).prctl({PR_SET_MDWE}, {PR_MDWE_REFUSE_EXEC_GAIN}, 0, 0, 0) != 0:
    sys.exit(77)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@contextmanager
def rendezvous(
    tmp_path: Path, *before: str
) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """The service, with the state directory and the notification socket that systemd would give."""
    command = [sys.executable, *before, "-m", "daemon.cli", "rendezvous", "--listen", "127.0.0.1:0"]
    with as_service(command, tmp_path, watchdog_s=0.2, wait_s=WAIT_S) as service:
        yield service


def test_it_is_ready_when_its_uri_is_known_is_watched_and_says_that_it_ends(tmp_path: Path) -> None:
    with rendezvous(tmp_path) as (process, manager):
        told = [manager.recv(4096).decode()]
        while not told[-1].startswith("READY=1"):
            assert told[-1] == "WATCHDOG=1"  # the loop turns before the socket is bound
            told.append(manager.recv(4096).decode())
        assert process.stdout is not None
        uri = process.stdout.readline().strip()
        assert ServerUri.parse(uri).address.host == "127.0.0.1"
        assert uri in told[-1]
        assert (tmp_path / "state" / "uri").read_text().strip() == uri
        assert manager.recv(4096) == b"WATCHDOG=1"

        process.send_signal(signal.SIGTERM)
        while (message := manager.recv(4096)) == b"WATCHDOG=1":
            pass
        assert message == b"STOPPING=1"
        assert process.wait(WAIT_S) == 0


def test_its_key_and_so_its_uri_stay_the_same(tmp_path: Path) -> None:
    keys = []
    for _ in range(2):
        with rendezvous(tmp_path) as (process, _manager):
            assert process.stdout is not None
            keys.append(ServerUri.parse(process.stdout.readline().strip()).key)
        (tmp_path / "notify").unlink()
    assert keys[0] == keys[1]


def test_it_works_where_memory_cannot_be_written_and_run(tmp_path: Path) -> None:
    with rendezvous(tmp_path, "-c", DENY_WRITE_EXECUTE) as (process, _manager):
        assert process.stdout is not None
        uri = process.stdout.readline()
        if not uri and process.wait(WAIT_S) == 77:
            pytest.skip("this kernel has no PR_SET_MDWE")
        assert uri.startswith("p2p://")


def test_where_it_cannot_listen_it_exits_78_which_the_unit_does_not_restart(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "daemon.cli", "rendezvous", "--listen", address,
             "--state-dir", str(tmp_path / "state")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )  # fmt: skip
    assert done.returncode == 78
    assert address in done.stderr
    assert "Traceback" not in done.stderr
