"""A command as systemd runs it."""

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def as_service(
    command: Sequence[str],
    directory: Path,
    *,
    watchdog_s: float,
    wait_s: float,
    environ: Mapping[str, str] | None = None,
) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """The process, and the socket on which it tells systemd how it is.

    Its state directory is ``state`` in ``directory``. ``wait_s``: the longest that it is waited
    for.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(directory / "notify"))
        manager.settimeout(wait_s)
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={
                **os.environ,
                "NOTIFY_SOCKET": str(directory / "notify"),
                "WATCHDOG_USEC": str(round(1e6 * watchdog_s)),
                "STATE_DIRECTORY": str(directory / "state"),
                **(environ or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process, manager
        finally:
            process.kill()
            process.communicate(timeout=wait_s)
