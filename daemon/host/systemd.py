"""Telling systemd how the service is (sd_notify(3)), over the datagram socket that it names.

Without ``NOTIFY_SOCKET`` nothing is sent, so callers need not ask whether they run under systemd.
A notification never blocks and never fails the service: the worst that follows from a lost one is
that systemd restarts it.

>>> with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
...     systemd.bind("")  # The kernel picks a name.
...     name = "@" + systemd.getsockname()[1:].decode()
...     SystemdNotifier({"NOTIFY_SOCKET": name}).ready("digits: ready to train")
...     systemd.recv(100).decode().splitlines()
['READY=1', 'STATUS=digits: ready to train']
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping

SIGNS_OF_LIFE = 10
"""Signs of life in the time that systemd waits for one."""

_log = logging.getLogger(__name__)


class SystemdNotifier:
    """Sends this process's notifications."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """``environ``: has ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` of systemd."""
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._last_error = ""
        self.watchdog_s = _watchdog_s(environ) if self._address else None
        """How long systemd waits for a sign of life; None: no watchdog."""

    def ready(self, status: str) -> None:
        """The service does its work from now on."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def status(self, text: str) -> None:
        """What ``systemctl status`` shows."""
        self._send(f"STATUS={_one_line(text)}")

    def stopping(self) -> None:
        """The service has begun to end."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """A sign of life."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(message.encode(), self._address)
        except OSError as error:
            if str(error) != self._last_error:  # not once per watchdog interval
                _log.warning("cannot notify systemd: %s", error)
            self._last_error = str(error)
        else:
            self._last_error = ""


async def feed_watchdog(notifier: SystemdNotifier, progresses: Callable[[], bool]) -> None:
    """Give signs of life while the event loop runs and ``progresses()`` says that work goes on.

    Ten in the time that systemd waits, where sd_watchdog_enabled(3) recommends two: so it waits for
    at least nine tenths of that after the work has stopped, and hears soon when it goes on, which
    leaves the daemon time to help itself (daemon/worker/pulse.py).

    Returns at once when systemd watches nothing; else runs until cancelled.
    """
    if notifier.watchdog_s is None:
        return
    while True:
        if progresses():
            notifier.watchdog()
        await asyncio.sleep(notifier.watchdog_s / SIGNS_OF_LIFE)


def _address(text: str) -> bytes | None:
    if text.startswith("@"):  # abstract namespace
        return b"\0" + os.fsencode(text[1:])
    return os.fsencode(text) if text.startswith("/") else None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    microseconds = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # meant for another process, which started this one
    return int(microseconds) / 1e6 if microseconds.isdigit() and int(microseconds) else None


def _one_line(text: str) -> str:
    return text.replace("\n", " ")
