"""How a process of a peer comes to be, and how it is spoken with and ended.

A launch starts one process after the other. Most are p2pd's own Python modules; a trainer may be a
command or a script of the user's (daemon/worker/script.py).
"""

import abc
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from daemon.host.python_child import child_command
from ml.averaging.environment import averager_environment
from p2pd.channel import GREETING

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Started(abc.ABC):
    """One process that was started."""

    may_leave = False
    """Whether it may end its channel and live on, and is done with once it has ended well."""
    is_child = True
    """Whether it is this process that waits for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @property
    @abc.abstractmethod
    def output(self) -> IO[bytes] | None:
        """What it prints; None where that goes elsewhere."""

    @abc.abstractmethod
    async def connect(self) -> Streams:
        """The channel to it, once it is there. The descriptors of the shared memory went first."""

    @abc.abstractmethod
    def kill(self) -> None:
        """Kill all of its group; nothing once it has been waited for."""

    @abc.abstractmethod
    def reap(self) -> int:
        """Its exit code (negative: a signal), once it has ended; closes what belonged to it."""


class Launch(Protocol):
    """A way to start."""

    async def __call__(self, descriptors: Sequence[int]) -> Started:
        """Start a process. ``descriptors``: of the shared memory.

        Raises :class:`OSError` and :class:`WorkerError`.
        """


class OwnChild(Started):
    """A child of this process, in a group of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", lifeline: int) -> None:
        """``lifeline``: the end of a pipe that ends with this process."""
        super().__init__(process.pid)
        self._process = process
        self._lifeline = lifeline

    @property
    def output(self) -> IO[bytes] | None:
        """See :class:`Started`."""
        return self._process.stdout

    def kill(self) -> None:
        """See :class:`Started`: its number may be another's once it has been waited for."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """See :class:`Started`."""
        os.close(self._lifeline)
        return self._process.wait()  # at once: it has ended, or was killed just now


class ModuleProcess(OwnChild):
    """A module of p2pd's that runs."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", lifeline: int, channel: socket.socket
    ) -> None:
        super().__init__(process, lifeline)
        self._channel = channel

    def greet(self, descriptors: Sequence[int]) -> None:
        """Hand it the descriptors, without which it does nothing. Raises :class:`OSError` where it
        has ended."""
        socket.send_fds(self._channel, [GREETING], descriptors)

    def discard(self) -> None:
        """End it, and leave nothing of it."""
        self._channel.close()
        if self.output is not None:
            self.output.close()
        self.kill()
        self.reap()

    async def connect(self) -> Streams:
        """See :class:`Started`."""
        return await asyncio.open_unix_connection(sock=self._channel)


@dataclass(frozen=True, slots=True)
class PythonModule:
    """Starts a module of p2pd's: ``python -m MODULE FD LIFELINE ARGUMENT…``."""

    module: str
    sees_little: bool = False
    """Whether it gets to see an averager's part of the environment only."""
    arguments: tuple[str, ...] = ()

    async def __call__(self, descriptors: Sequence[int]) -> Started:
        """See :class:`Launch`. One that ends at once is told of as any other that ends."""
        process = self.begin()
        with contextlib.suppress(OSError):
            process.greet(descriptors)
        return process

    def begin(self) -> ModuleProcess:
        """Start it from this thread, for it to load what it needs and then wait to be greeted: the
        kernel ends the process when the thread that started it ends."""
        with contextlib.ExitStack() as stack:
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            failed = stack.enter_context(contextlib.ExitStack())
            failed.callback(ours.close)
            reading, writing = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, reading)
            failed.callback(os.close, writing)
            passed = (theirs.fileno(), reading)
            process = spawn(
                child_command(self.module, *map(str, passed), *self.arguments),
                passed,
                self.variables(os.environ),
            )
            failed.pop_all()
        return ModuleProcess(process, writing, ours)

    def variables(self, environ: Mapping[str, str]) -> dict[str, str]:
        """What it sees of an environment."""
        if self.sees_little:
            return averager_environment(environ)
        return {**environ, "PYTHONUNBUFFERED": "1"}


def spawn(
    command: Sequence[str], passed: Sequence[int], variables: dict[str, str]
) -> "subprocess.Popen[bytes]":
    """A child in a group of its own, whose output is read. ``passed``: descriptors it inherits."""
    return subprocess.Popen(
        command,
        pass_fds=passed,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=variables,
        process_group=0,
    )
