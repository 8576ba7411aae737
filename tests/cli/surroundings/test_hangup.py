"""What SIGHUP does: a closed terminal ends a peer, a signal sent on purpose has it read again."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT

WAIT_S = 60.0
PROGRAM = """
import asyncio, sys
from pathlib import Path
from daemon.host.hangup import watch_hangup

async def main() -> None:
    ended = asyncio.Event()

    def note(what):
        Path(sys.argv[1]).write_text(what)
        ended.set()

    loop = asyncio.get_running_loop()
    watch_hangup(loop, lambda: note("stop"), lambda: note("reread"))
    print("ready", flush=True)
    await ended.wait()

asyncio.run(main())
"""


def start(noted: Path, **how: object) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(  # type: ignore[call-overload]  # what differs from test to test
        [sys.executable, "-c", PROGRAM, str(noted)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,
        **how,
    )
    assert process.stdout.readline() == b"ready\n"
    return process  # type: ignore[no-any-return]


def end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.communicate(timeout=WAIT_S)


def test_a_signal_on_purpose_has_settings_read_again(tmp_path: Path) -> None:
    process = start(tmp_path / "noted")
    process.send_signal(signal.SIGHUP)
    assert process.wait(WAIT_S) == 0
    assert (tmp_path / "noted").read_text() == "reread"
    end(process)


@pytest.mark.parametrize("what", ["stop", "reread"])
def test_a_terminal_that_closes_ends_it_and_one_that_is_there_does_not(
    tmp_path: Path, what: str
) -> None:
    controller, terminal = pty.openpty()
    take_terminal: Callable[[], None] = lambda: os.close(  # noqa: E731
        os.open(os.ttyname(terminal), os.O_RDWR)
    )
    process = start(tmp_path / "noted", stdin=terminal, preexec_fn=take_terminal)
    os.close(terminal)
    if what == "stop":
        os.close(controller)
    else:
        process.send_signal(signal.SIGHUP)
    assert process.wait(WAIT_S) == 0
    assert (tmp_path / "noted").read_text() == what
    end(process)
    if what == "reread":
        os.close(controller)


def test_under_nohup_it_stays(tmp_path: Path) -> None:
    process = start(
        tmp_path / "noted", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == -signal.SIGTERM
    assert not (tmp_path / "noted").exists()
    end(process)
