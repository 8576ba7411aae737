"""One process from its start to its end: its channel, its output, its death.

It ends when this process ends, however that happens: its end of the socket pair is then closed, and
the kernel kills it with its parent. Its exit itself is noticed (pidfd_open(2)), even if others
still hold its streams; then its whole process group is killed.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from daemon.host.python_child import child_command
from daemon.worker.program import Message, Program
from p2pd.channel import GREETING, HEAD, MAX_BODY_BYTES, UNASKED, to_frame
from protocol.errors import RemoteProtocolError, WorkerError
from protocol.text import printable

END_DEADLINE_S = 5.0
MAX_NICENESS = 19
"""How long a process may take to end when told to; then it is killed."""
_MAX_LOG_LINE_BYTES = 1 << 16

_log = logging.getLogger("p2pd.worker")


class WorkerDiedError(WorkerError):
    """The process is gone; :meth:`daemon.worker.child.Child.restart` starts another."""


class Life:
    """One process, from its start to its end."""

    def __init__(
        self,
        started: "_Started",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        tasks: asyncio.TaskGroup,
        listener: "Listener",
    ) -> None:
        self.pid = started.process.pid
        self.death: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Set, once the process is gone, to how it ended."""
        self._program = started.program
        self._process = started.process
        self._lifeline = started.lifeline
        self._reader = reader
        self._writer = writer
        self._listener = listener
        self._expected: dict[int, asyncio.Future[Message]] = {}
        self._reason = ""
        self._last_line = ""
        name = f"{started.program.name} {self.pid}"
        self._receiving = tasks.create_task(self._receive(), name=f"channel of {name}")
        self._logging = tasks.create_task(self._log_output(), name=f"log of {name}")
        self._attending = tasks.create_task(self._attend(), name=name)

    @classmethod
    async def start(
        cls,
        program: Program,
        descriptors: Sequence[int],
        tasks: asyncio.TaskGroup,
        listener: "Listener",
    ) -> "Life":
        """``descriptors``: of the shared memory. Raises :class:`OSError`."""
        started = _spawn(program, descriptors)
        try:
            reader, writer = await asyncio.open_unix_connection(sock=started.channel)
        except BaseException:
            started.abort()
            raise
        return cls(started, reader, writer, tasks, listener)

    def expect(self, number: int) -> "asyncio.Future[Message]":
        """The answer to the request of that number, once it comes."""
        self._expected[number] = asyncio.get_running_loop().create_future()
        return self._expected[number]

    def forget(self, number: int) -> None:
        """Its answer is no longer wanted."""
        self._expected.pop(number, None)

    def send(self, number: int, request: object) -> None:
        """Requests are few and small, so none waits for room. Nothing to a process that is gone."""
        if not self._writer.is_closing():
            self._writer.write(to_frame(number, self._program.encode(request)))

    async def kill(self, reason: str) -> None:
        """Kill the process and wait until it is gone."""
        self._reason = reason
        self._kill()
        await asyncio.wait([self._attending])

    async def end(self) -> None:
        """End the process, kindly if it listens; returns when it is gone."""
        try:
            self.send(UNASKED, self._program.shutdown)
            await asyncio.wait([self._attending], timeout=END_DEADLINE_S)
        finally:
            # Not awaited before it is sent: this may be the last that a cancelled task does.
            self._kill()
        await asyncio.wait([self._attending])

    def _kill(self) -> None:
        """All of its group. Not once it has been waited for: its number may be another's then."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def _attend(self) -> None:
        """Wait until the process is gone, then fail what is still expected."""
        try:
            await _wait_exit(self.pid)
            # The rest of what it said; helpers of its own may hold the streams open.
            self._kill()
            await asyncio.wait([self._receiving, self._logging], timeout=1)
        finally:
            self._receiving.cancel()
            self._logging.cancel()
            self._kill()
            self._writer.close()
            os.close(self._lifeline)
            code = self._process.wait()  # at once: it has ended, or was killed just now
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        last_words = f" ({self._last_line})" if code > 0 and self._last_line else ""
        reason = self._reason or f"{self._program.name} died: {how}{last_words}"
        self.death.set_result(reason)
        for answer in self._expected.values():
            if not answer.done():
                answer.set_exception(WorkerDiedError(reason))

    async def _receive(self) -> None:
        """Take messages until the channel is closed, or brings something else."""
        while True:
            try:
                length, number = HEAD.unpack(await self._reader.readexactly(HEAD.size))
                if length > MAX_BODY_BYTES:
                    raise RemoteProtocolError(f"{length} bytes announced")
                message = self._program.decode(await self._reader.readexactly(length))
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            except RemoteProtocolError as error:
                self._reason = f"the {self._program.name} sent what is no message: {error}"
                self._kill()
                return
            if number == UNASKED:
                self._listener.said(message)
                continue
            self._listener.answered(number)
            if (answer := self._expected.get(number)) and not answer.done():
                answer.set_result(message)
        # It has nothing left to do.
        await asyncio.sleep(END_DEADLINE_S)
        self._kill()

    async def _log_output(self) -> None:
        output = self._process.stdout
        assert output is not None
        reader = asyncio.StreamReader(limit=_MAX_LOG_LINE_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), output
        )
        try:
            while True:
                try:
                    line = await reader.readline()
                except ValueError:
                    continue  # longer than the limit: dropped
                if not line:
                    return
                text = printable(line.decode(errors="replace").rstrip())
                if text:
                    self._last_line = text
                    level = logging.getLevelNamesMapping().get(text.partition(" ")[0], logging.INFO)
                    _log.log(level, "%s", text)
        finally:
            transport.close()


class Listener(Protocol):
    """Who hears what a process says by itself."""

    def said(self, message: Message) -> None:
        """It said something unasked."""

    def answered(self, number: int) -> None:
        """It answered the request of that number, also if nobody waits for that."""


class _Started(NamedTuple):
    program: Program
    process: "subprocess.Popen[bytes]"
    channel: socket.socket
    lifeline: int
    """The end of a pipe that ends with this process."""

    def abort(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.channel.close()
        os.close(self.lifeline)


def _spawn(program: Program, descriptors: Sequence[int]) -> _Started:
    """Start it from this thread: the kernel ends the process when the thread ends."""
    with contextlib.ExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.enter_context(theirs)
        failed = stack.enter_context(contextlib.ExitStack())
        failed.callback(ours.close)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, reading)
        failed.callback(os.close, writing)
        socket.send_fds(ours, [GREETING], descriptors)
        passed = (theirs.fileno(), reading)
        process = subprocess.Popen(
            child_command(program.module, *map(str, passed)),
            pass_fds=passed,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment_of(program),
            process_group=0,
        )
        if program.niceness:
            # Before it has further threads, which take theirs from the first.
            own = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, process.pid, min(own + program.niceness, MAX_NICENESS))
        failed.pop_all()
    return _Started(program, process, ours, writing)


def _environment_of(program: Program) -> dict[str, str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if program.environment is None:
        return environment
    kept = {name: environment[name] for name in program.environment if name in environment}
    # Threads of a library for matrices, of which it multiplies none.
    return {**kept, "PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


async def _wait_exit(pid: int) -> None:
    """Wait until the child is a zombie."""
    descriptor = os.pidfd_open(pid)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
