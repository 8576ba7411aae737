"""Notifications over real sockets, as systemd would receive them."""

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.host.systemd import SystemdNotifier, feed_watchdog


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The socket that systemd listens on, and its name in ``NOTIFY_SOCKET``."""
    name = str(tmp_path / "notify")
    if request.param == "abstract":
        name = f"@p2pd-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        receiver.settimeout(10)
        yield receiver, name


def test_the_life_of_a_service_is_told(manager: tuple[socket.socket, str]) -> None:
    receiver, name = manager
    notifier = SystemdNotifier({"NOTIFY_SOCKET": name})
    notifier.ready("round 1\nREADY=0")
    notifier.status("round 2")
    notifier.watchdog()
    notifier.stopping()
    assert [receiver.recv(4096) for _ in range(4)] == [
        b"READY=1\nSTATUS=round 1 READY=0",
        b"STATUS=round 2",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]


async def test_watchdog_is_fed_only_while_work_progresses(
    manager: tuple[socket.socket, str],
) -> None:
    receiver, name = manager
    notifier = SystemdNotifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2000"})
    assert notifier.watchdog_s == 0.002
    answers = iter([True, True, False, False, False])
    asked = asyncio.Event()

    def progresses() -> bool:
        answer = next(answers, None)
        if answer is None:
            asked.set()
        return bool(answer)

    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        feeder = group.create_task(feed_watchdog(notifier, progresses))
        await asked.wait()
        feeder.cancel()
    receiver.setblocking(False)
    assert receiver.recv(4096) == receiver.recv(4096) == b"WATCHDOG=1"
    with pytest.raises(BlockingIOError):
        receiver.recv(4096)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": "relative/path"},
        {"WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "/run/notify"},
        {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
async def test_without_a_watchdog_nothing_is_fed(environ: dict[str, str]) -> None:
    notifier = SystemdNotifier(environ)
    assert notifier.watchdog_s is None

    def never() -> bool:
        raise AssertionError("asked although nobody watches")

    async with asyncio.timeout(90):
        await feed_watchdog(notifier, never)


def test_watchdog_meant_for_this_process_is_taken() -> None:
    environ = {
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "60000000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    assert SystemdNotifier(environ).watchdog_s == 60.0


@pytest.mark.parametrize(
    "act", [SystemdNotifier.watchdog, SystemdNotifier.stopping], ids=["watchdog", "stopping"]
)
def test_a_manager_that_is_gone_is_warned_about_once_and_hurts_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, act: Callable[[SystemdNotifier], None]
) -> None:
    notifier = SystemdNotifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    act(notifier)
    act(notifier)
    assert caplog.text.count("cannot notify systemd") == 1


def test_a_manager_that_does_not_read_blocks_nobody(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        notifier = SystemdNotifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        for _ in range(5000):
            notifier.watchdog()
        assert receiver.recv(4096) == b"WATCHDOG=1"
