"""``p2pd join`` as its unit runs it: link from a credential, state in the service's directory."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.control_client import ControlClient

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_S = 60.0
CLI = (sys.executable, "-m", "daemon.cli")


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Path]:
    """A file with the invite link of a swarm for one, as ``LoadCredential=`` would place it."""
    state_dir = str(tmp_path / "rendezvous")
    rendezvous = subprocess.Popen(
        [*CLI, "rendezvous", "--listen", "127.0.0.1:0", "--state-dir", state_dir],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert rendezvous.stdout is not None
    uri = rendezvous.stdout.readline().strip()
    created = subprocess.run(
        [*CLI, "create", "--task", "digits", "--rendezvous", uri, "--min-peers", "1",
         "--state-dir", str(tmp_path / "founder")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
    )  # fmt: skip
    credential = tmp_path / "link"
    credential.write_text(created.stdout)
    yield credential
    rendezvous.terminate()
    rendezvous.communicate(timeout=WAIT_S)


@contextmanager
def peer(tmp_path: Path, link: Path) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """The service, and the socket on which it tells systemd how it is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(WAIT_S)
        process = subprocess.Popen(
            [*CLI, "join", str(link), "--listen", "127.0.0.1:0", "--threads", "1"],
            cwd=ROOT,
            env={
                **os.environ,
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "WATCHDOG_USEC": "400000",
                "STATE_DIRECTORY": str(tmp_path / "state"),
                "JOURNAL_STREAM": "8:1",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process, manager
        finally:
            process.kill()
            process.communicate(timeout=WAIT_S)


def next_but_signs_of_life(manager: socket.socket) -> str:
    """The next notification that is no sign of life or mere status."""
    while (message := manager.recv(4096).decode()).startswith(("WATCHDOG=1", "STATUS=")):
        pass
    return message


def test_it_is_ready_when_it_can_train_and_ends_in_good_order(tmp_path: Path, link: Path) -> None:
    with peer(tmp_path, link) as (process, manager):
        assert next_but_signs_of_life(manager).startswith("READY=1\n")
        status = ControlClient(tmp_path / "state").status()
        assert status.phase != "starting"
        assert status.sample_count > 0
        assert manager.recv(4096) == b"WATCHDOG=1"
        process.send_signal(signal.SIGTERM)
        assert next_but_signs_of_life(manager) == "STOPPING=1"
        assert process.wait(WAIT_S) == 0
        assert process.stderr is not None
        log = process.stderr.read()
    assert "Traceback" not in log
    assert all(line.startswith("<") for line in log.splitlines())
    assert link.read_text().strip() not in log


def test_key_that_others_may_have_read_exits_78_which_the_unit_does_not_restart(
    tmp_path: Path, link: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "identity.key").write_bytes(bytes(32))
    (state / "identity.key").chmod(0o644)
    with peer(tmp_path, link) as (process, _manager):
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 78
    assert "chmod 600" in errors
    assert "Traceback" not in errors
