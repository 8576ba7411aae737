"""The demo's processes: started, watched, and gone when the demo is, however it ended."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from daemon.host.python_child import child_command
from protocol.errors import P2PDError

TERMINATE_S = 15.0
POLL_S = 0.02
LOG_TAIL_LINES = 25
LOG_TAIL_BYTES = 16 * 1024


class DemoFailedError(P2PDError):
    """The demo did not run to its end."""

    def __init__(self, text: str, log_tail: str = "") -> None:
        super().__init__(text)
        self.log_tail = log_tail
        """The last words of the process that failed."""


class Child:
    """One process, in a process group of its own; what it prints and logs goes into files."""

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], output: Path, log: Path
    ) -> None:
        self.name = name
        self._process = process
        self._output = output
        self._log = log
        self._exit_code: int | None = None

    async def first_line(self, timeout_s: float) -> str:
        """The first line that it prints. Raises :class:`DemoFailedError`."""
        try:
            async with asyncio.timeout(timeout_s):
                while b"\n" not in (printed := self._output.read_bytes()):
                    if self._poll() is not None:
                        raise await self.ended()
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise self.failed(f"said nothing for {timeout_s:g} s") from None
        return printed.decode().splitlines()[0]

    async def output(self) -> str:
        """All that it prints until it ends well. Raises :class:`DemoFailedError` otherwise."""
        if await self._wait() != 0:
            raise await self.ended()
        return self._output.read_text()

    async def ended(self) -> DemoFailedError:
        """Wait for its end, which was not expected; the error to raise."""
        code = await self._wait()
        how = f"exited with {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        return self.failed(how)

    def failed(self, how: str) -> DemoFailedError:
        """The error that says so, with the end of its log."""
        lines = self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").splitlines()
        return DemoFailedError(f"{self.name} {how}", "\n".join(lines[-LOG_TAIL_LINES:]))

    def terminate(self) -> None:
        """Ask it to end; :meth:`stop` waits for that."""
        if self._poll() is None:
            self._process.terminate()

    async def stop(self) -> None:
        """End it and everything that it started, politely at first."""
        self.terminate()
        try:
            async with asyncio.timeout(TERMINATE_S):
                await self._wait()
        except TimeoutError:
            self.kill()

    def kill(self) -> None:
        """End it and everything that it started, at once."""
        if self._poll() is None:
            self._kill_group()
            self._exit_code = self._process.wait()

    async def _wait(self) -> int:
        # asyncio's own processes wait for their pipes too, which a grandchild may hold open.
        while (code := self._poll()) is None:  # noqa: ASYNC110 - an exit sets no asyncio.Event
            await asyncio.sleep(POLL_S)
        return code

    def _poll(self) -> int | None:
        """Its exit code; when it has just ended, nothing that it started survives it."""
        if self._exit_code is None:
            self._exit_code = self._process.poll()
            if self._exit_code is not None:
                self._kill_group()
        return self._exit_code

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def run_child(
    name: str, arguments: Sequence[str], directory: Path, *, niceness: int = 0
) -> AsyncIterator[Child]:
    """``python ARGUMENTS`` while the ``async with`` block runs, with its files in ``directory``."""
    command = child_command("daemon.host.mortal_child", str(os.getpid()), *arguments)
    if niceness:
        command = ["nice", "-n", str(niceness), *command]
    output, log = directory / f"{name}.out", directory / f"{name}.log"
    with output.open("wb") as output_file, log.open("wb") as log_file:
        process = subprocess.Popen(  # noqa: ASYNC220 - blocks for a millisecond; see Child._wait
            command,
            stdin=subprocess.DEVNULL,
            stdout=output_file,
            stderr=log_file,
            # Ctrl-C is for the demo, which then stops its children in order.
            start_new_session=True,
        )
    child = Child(name, process, output, log)
    try:
        yield child
    finally:
        await asyncio.shield(child.stop())
