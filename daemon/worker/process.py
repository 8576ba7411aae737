"""One process from its start to its end: its channel, its output, its death.

It ends when this process ends, however that happens: its end of the socket pair is then closed, and
the kernel kills it with its parent. Its exit itself is noticed (pidfd_open(2)), even if others
still hold its streams; then its whole process group is killed.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Protocol

from daemon.worker.launch import Started
from daemon.worker.program import Message, Program
from p2pd.channel import HEAD, MAX_BODY_BYTES, UNASKED, to_frame
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
        self, program: Program, started: Started, tasks: asyncio.TaskGroup, listener: "Listener"
    ) -> None:
        self.pid = started.pid
        self.death: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Set, once the process is gone, to how it ended."""
        self.has_left = False
        """Whether it ended because it had nothing more to do here."""
        self._program = program
        self._started = started
        self._writer: asyncio.StreamWriter | None = None
        self._unsent: list[bytes] = []
        self._listener = listener
        self._expected: dict[int, asyncio.Future[Message]] = {}
        self._reason = ""
        self._last_line = ""
        name = f"{program.name} {self.pid}"
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
        """``descriptors``: of the shared memory. Raises :class:`OSError` and
        :class:`WorkerError`."""
        started = await program.launch(descriptors)
        if started.is_child and program.niceness:
            # Before it has further threads, which take theirs from the first. A fork may have made
            # itself nice already, and only root may take that back.
            own = os.getpriority(os.PRIO_PROCESS, 0)
            wanted = min(own + program.niceness, MAX_NICENESS)
            has = os.getpriority(os.PRIO_PROCESS, started.pid)
            os.setpriority(os.PRIO_PROCESS, started.pid, max(wanted, has))
        return cls(program, started, tasks, listener)

    def expect(self, number: int) -> "asyncio.Future[Message]":
        """The answer to the request of that number, once it comes."""
        self._expected[number] = asyncio.get_running_loop().create_future()
        return self._expected[number]

    def forget(self, number: int) -> None:
        """Its answer is no longer wanted."""
        self._expected.pop(number, None)

    def send(self, number: int, request: object) -> None:
        """Requests are few and small, so none waits for room. Nothing to a process that is gone."""
        frame = to_frame(number, self._program.encode(request))
        if self._writer is None:
            self._unsent.append(frame)
        elif not self._writer.is_closing():
            self._writer.write(frame)

    async def kill(self, reason: str) -> None:
        """Kill the process and wait until it is gone."""
        self._reason = reason
        self._started.kill()
        await asyncio.wait([self._attending])

    async def end(self, *, was_asked: bool = True) -> None:
        """End the process, kindly if it listens; returns when it is gone.

        ``was_asked``: whether it was asked for anything. Else it has nothing to lose, and may still
        load and not listen: unless it is a program of the user's, it is killed at once.
        """
        if not was_asked and not self._started.may_leave:
            self._started.kill()
        try:
            self.send(UNASKED, self._program.shutdown)
            await asyncio.wait([self._attending], timeout=END_DEADLINE_S)
        finally:
            # Not awaited before it is sent: this may be the last that a cancelled task does.
            self._started.kill()
            if not self._started.is_child and self._writer is not None:
                self._writer.close()
        await asyncio.wait([self._attending])

    async def _attend(self) -> None:
        """Wait until the process is gone, then fail what is still expected."""
        exiting = asyncio.ensure_future(_wait_exit(self.pid))
        try:
            await self._wait_end(exiting)
            # The rest of what it said; helpers of its own may hold the streams open.
            self._started.kill()
            await asyncio.wait([self._receiving, self._logging], timeout=1)
        finally:
            exiting.cancel()
            self._receiving.cancel()
            self._logging.cancel()
            self._started.kill()
            if self._writer is not None:
                self._writer.close()
            code = self._started.reap()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        last_words = f" ({self._last_line})" if code > 0 and self._last_line else ""
        reason = self._reason or f"{self._program.name} died: {how}{last_words}"
        self.has_left = self._started.may_leave and code == 0 and self._writer is not None
        self.death.set_result(reason)
        self._fail_expected(reason)

    async def _wait_end(self, exiting: "asyncio.Future[None]") -> None:
        """A child ends when it exits; a script that is none, also when it ends its channel."""
        if self._started.is_child:
            await exiting
        else:
            await asyncio.wait([exiting, self._receiving], return_when=asyncio.FIRST_COMPLETED)
            self._reason = self._reason or f"the {self._program.name} has left"

    def _fail_expected(self, reason: str) -> None:
        for answer in self._expected.values():
            if not answer.done():
                answer.set_exception(WorkerDiedError(reason))

    async def _receive(self) -> None:
        """Take messages until the channel is closed, or brings something else."""
        reader, self._writer = await self._started.connect()
        for frame in self._unsent:
            self._writer.write(frame)
        self._unsent.clear()
        while True:
            try:
                length, number = HEAD.unpack(await reader.readexactly(HEAD.size))
                if length > MAX_BODY_BYTES:
                    raise RemoteProtocolError(f"{length} bytes announced")
                message = self._program.decode(await reader.readexactly(length))
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            except RemoteProtocolError as error:
                self._reason = f"the {self._program.name} sent what is no message: {error}"
                self._started.kill()
                return
            if number == UNASKED:
                self._listener.said(message)
                continue
            self._listener.answered(number)
            if (answer := self._expected.get(number)) and not answer.done():
                answer.set_result(message)
        if self._started.may_leave:
            # It may have something else to do, such as to save what it came to.
            self._fail_expected(f"the {self._program.name} has left")
            return
        # It has nothing left to do.
        await asyncio.sleep(END_DEADLINE_S)
        self._started.kill()

    async def _log_output(self) -> None:
        output = self._started.output
        if output is None:
            return
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
                    if any(character.isalnum() for character in text):  # no ruler
                        self._last_line = text
                    level = logging.getLevelNamesMapping().get(text.partition(" ")[0], logging.INFO)
                    _log.log(level, "%s", text)
        finally:
            transport.close()


class Listener(Protocol):
    """Who hears what a process says by itself."""

    def said(self, message: Message) -> None:
        """The process said something unasked."""

    def answered(self, number: int) -> None:
        """The process answered the request of that number, also if nobody waits for that."""


async def _wait_exit(pid: int) -> None:
    """Wait until the child is a zombie."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:  # and waited for, as is a fork whose fork server has died
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
