"""``p2pd join`` as its unit runs it: link from a credential, state in the service's directory."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from daemon.control.client import ControlClient
from tests.systemd.service import ROOT, as_service

WAIT_S = 60.0
WATCHDOG_S = 0.4
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
    command = [*CLI, "join", str(link), "--listen", "127.0.0.1:0", "--threads", "1", "--nice", "3"]
    certificates = tmp_path / "certificates"
    os.mkfifo(certificates)
    # Who reads certificates waits for ever: none of its processes does.
    environ = {"JOURNAL_STREAM": "8:1", "SSL_CERT_FILE": str(certificates)}
    with as_service(
        command, tmp_path, watchdog_s=WATCHDOG_S, wait_s=WAIT_S, environ=environ
    ) as service:
        yield service


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
        niceness = os.getpriority(os.PRIO_PROCESS, process.pid)
        for pid in (status.worker_pid, status.averager_pid):
            assert pid is not None
            # Each may add to that by itself.
            assert os.getpriority(os.PRIO_PROCESS, pid) >= min(19, niceness + 3)
        check_hours(ControlClient(tmp_path / "state"))
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert next_but_signs_of_life(manager) == "STOPPING=1"
        assert process.wait(WAIT_S) == 0
        assert process.stderr is not None
        log = process.stderr.read()
    assert "Traceback" not in log
    assert "settings read again" in log
    assert all(line.startswith("<") for line in log.splitlines())
    assert link.read_text().strip() not in log


def test_worker_that_stops_is_told_and_ends_the_signs_of_life_until_it_goes_on(
    tmp_path: Path, link: Path
) -> None:
    with peer(tmp_path, link) as (_process, manager):
        assert next_but_signs_of_life(manager).startswith("READY=1\n")
        client = ControlClient(tmp_path / "state")
        worker_pid = client.status().worker_pid
        assert worker_pid is not None
        os.kill(worker_pid, signal.SIGSTOP)
        wait_until(lambda: "worker-stuck" in health_codes(client))
        drain(manager)
        manager.settimeout(4 * WATCHDOG_S)
        with pytest.raises(TimeoutError):
            manager.recv(4096)
        manager.settimeout(WAIT_S)

        os.kill(worker_pid, signal.SIGCONT)
        assert manager.recv(4096) == b"WATCHDOG=1"
        wait_until(lambda: "worker-stuck" not in health_codes(client))
        assert client.status().worker_pid == worker_pid


def check_hours(client: ControlClient) -> None:
    """Outside of its hours a running peer is paused, and goes on when it has others."""
    hour = time.localtime().tm_hour
    client.change_limits({"hours": f"{(hour + 2) % 24}:00-{(hour + 3) % 24}:00"})
    wait_until(lambda: client.status().phase == "paused")
    status = client.status()
    assert status.paused == f"until {(hour + 2) % 24:02d}:00: hours"
    assert "niceness 3" in status.limits
    client.change_limits({"hours": ""})
    wait_until(lambda: client.status().phase != "paused")


def health_codes(client: ControlClient) -> set[str]:
    return {item.code for item in client.status().health}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def drain(manager: socket.socket) -> None:
    """Take what came until now."""
    manager.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            manager.recv(4096)


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
