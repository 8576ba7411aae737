"""One worker process from its start to its end: its channel, its output, its death.

The worker ends when this process ends, however that happens: its end of the socket pair is then
closed, and the kernel kills it with its parent.
"""

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Callable

from daemon.host.python_child import child_environment, require_torch
from ml.worker.messages import (
    MAX_WORKER_MESSAGE_BYTES,
    FromWorker,
    Progress,
    Shutdown,
    WorkerReply,
    WorkerRequest,
    Working,
)
from protocol.codec import decode, encode
from protocol.errors import RemoteProtocolError, WorkerError
from protocol.text import printable

END_DEADLINE_S = 5.0
"""How long a worker may take to end when told to; then it is killed."""
_LENGTH_BYTES = 4
_MAX_LOG_LINE_BYTES = 1 << 16

_log = logging.getLogger("p2pd.worker")


class WorkerDiedError(WorkerError):
    """The process is gone; :meth:`WorkerProcess.restart` starts another."""


class WorkerLife:
    """One process, from its start to its end."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        tasks: asyncio.TaskGroup,
        on_message: Callable[[FromWorker], None],
    ) -> None:
        self.pid = process.pid
        self.death: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Set, once the process is gone, to how it ended."""
        self._process = process
        self._reader = reader
        self._writer = writer
        self._on_message = on_message
        self._expected: dict[int, asyncio.Future[WorkerReply]] = {}
        self._reason = ""
        self._last_line = ""
        self._attending = tasks.create_task(self._attend(), name=f"worker {process.pid}")
        self._logging = tasks.create_task(self._log_output(), name=f"log of {process.pid}")

    @classmethod
    async def start(
        cls, tasks: asyncio.TaskGroup, on_message: Callable[[FromWorker], None]
    ) -> "WorkerLife":
        """``on_message`` is told all that it says, also answers that nobody waits for.

        Raises :class:`ConfigError` where torch is not installed.
        """
        require_torch()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "ml.worker.__main__", str(theirs.fileno())),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    env={**child_environment(), "PYTHONUNBUFFERED": "1"},
                    limit=_MAX_LOG_LINE_BYTES,
                )
                reader, writer = await asyncio.open_unix_connection(sock=ours)
            except BaseException:
                ours.close()
                raise
        return cls(process, reader, writer, tasks, on_message)

    def expect(self, number: int) -> "asyncio.Future[WorkerReply]":
        """The answer to the request of that number, once it comes."""
        self._expected[number] = asyncio.get_running_loop().create_future()
        return self._expected[number]

    def forget(self, number: int) -> None:
        """Its answer is no longer wanted."""
        self._expected.pop(number, None)

    def send(self, request: WorkerRequest) -> None:
        """Requests are few and small, so none waits for room. Nothing to a worker that is gone."""
        if not self._writer.is_closing():
            data = encode(request)
            self._writer.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)

    async def kill(self, reason: str) -> None:
        """Kill the process and wait until it is gone."""
        self._reason = reason
        self._kill()
        await asyncio.wait([self._attending])

    async def end(self) -> None:
        """End the process, kindly if it listens; returns when it is gone."""
        try:
            self.send(Shutdown(0))
            await asyncio.wait([self._attending], timeout=END_DEADLINE_S)
        finally:
            # Not awaited before it is sent: this may be the last that a cancelled task does.
            self._kill()
        await asyncio.wait([self._attending])

    def _kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _attend(self) -> None:
        """Receive until the process is gone, then fail what is still expected."""
        try:
            try:
                await self._receive()
            except RemoteProtocolError as error:
                self._reason = f"the worker sent what is no message: {error}"
                self._kill()
            self._writer.close()
            code = await self._wait_exit()
            # The rest of its output; a process that it started may hold the pipe open.
            await asyncio.wait([self._logging], timeout=1)
        finally:
            self._logging.cancel()
            self._kill()
            self._writer.close()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        last_words = f" ({self._last_line})" if code > 0 and self._last_line else ""
        reason = self._reason or f"worker died: {how}{last_words}"
        self.death.set_result(reason)
        for answer in self._expected.values():
            if not answer.done():
                answer.set_exception(WorkerDiedError(reason))

    async def _wait_exit(self) -> int:
        """A worker that closed its channel has nothing left to do."""
        try:
            async with asyncio.timeout(END_DEADLINE_S):
                return await self._process.wait()
        except TimeoutError:
            self._kill()
            return await self._process.wait()

    async def _receive(self) -> None:
        """Until the channel is closed. Raises :class:`RemoteProtocolError`."""
        # mypy does not take a union for a type[T].
        kind: type[FromWorker] = FromWorker  # type: ignore[assignment]
        while True:
            try:
                length = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
                if length > MAX_WORKER_MESSAGE_BYTES:
                    raise RemoteProtocolError(f"{length} bytes announced")
                data = await self._reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            message = decode(data, kind, max_bytes=MAX_WORKER_MESSAGE_BYTES)
            self._on_message(message)
            if isinstance(message, Progress | Working):
                continue
            if (answer := self._expected.get(message.request)) and not answer.done():
                answer.set_result(message)

    async def _log_output(self) -> None:
        output = self._process.stdout
        assert output is not None
        while True:
            try:
                line = await output.readline()
            except ValueError:
                continue  # longer than the limit: dropped
            if not line:
                return
            text = printable(line.decode(errors="replace").rstrip())
            if text:
                self._last_line = text
                level = logging.getLevelNamesMapping().get(text.partition(" ")[0], logging.INFO)
                _log.log(level, "%s", text)
