"""A trainer of the user's own: a command that this daemon starts and starts again, or the script
that started this daemon. Both speak through the package `p2pd`.

A command finds the daemon by a Unix socket, whose path is in :data:`TRAINER_VARIABLE`: torchrun and
other launchers pass variables on, and no descriptors. Only the user of this process is answered
there, once for each start of the command. The script that started this daemon has the other end of
a socket pair; when it leaves or ends, the daemon has nothing left to do.

Example (daemon/swarm/found.py)::

    return trainer_by_script(self.script)
    return trainer_by_command(Command(self.command, scratch))
"""

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from daemon.host.python_child import child_command
from daemon.host.unix_socket import listen_control, peer_uid
from daemon.worker.launch import OwnChild, Started, Streams, spawn
from p2pd.channel import GREETING
from p2pd.script.place import TRAINER_VARIABLE
from protocol.errors import WorkerError

SOCKET_NAME = "trainer.sock"


class Command:
    """Starts a command line of the user's."""

    def __init__(self, words: Sequence[str], directory: Path) -> None:
        """``directory``: of mode 0700, where the socket lies while the command runs."""
        self._words = tuple(words)
        self._socket_path = directory / SOCKET_NAME

    async def __call__(self, descriptors: Sequence[int]) -> Started:
        """See :class:`daemon.worker.launch.Launch`. Raises :class:`ConfigError` too."""
        variables = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            TRAINER_VARIABLE: str(self._socket_path),
        }
        with contextlib.ExitStack() as stack:
            failed = stack.enter_context(contextlib.ExitStack())
            door = _Door(self._socket_path, descriptors)
            failed.callback(door.close)
            reading, writing = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, reading)
            failed.callback(os.close, writing)
            words = child_command("daemon.worker.run_command", str(reading), *self._words)
            process = spawn(words, (reading,), variables)
            failed.pop_all()
        return _CommandProcess(process, writing, door)


class _Door:
    """The socket at which a command's script comes in, once."""

    def __init__(self, path: Path, descriptors: Sequence[int]) -> None:
        self._path = path
        self._listener = listen_control(path)
        self._descriptors = descriptors

    async def admit(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._listener)
            if peer_uid(connection) in (0, os.geteuid()):
                with contextlib.suppress(OSError):  # it is gone again
                    socket.send_fds(connection, [GREETING], self._descriptors)
                    self.close()
                    return connection
            connection.close()

    def close(self) -> None:
        if self._listener.fileno() >= 0:
            self._listener.close()
            self._path.unlink(missing_ok=True)


class _CommandProcess(OwnChild):
    may_leave = True

    def __init__(self, process: "subprocess.Popen[bytes]", lifeline: int, door: _Door) -> None:
        super().__init__(process, lifeline)
        self._door = door

    async def connect(self) -> Streams:
        return await asyncio.open_unix_connection(sock=await self._door.admit())

    def reap(self) -> int:
        self._door.close()
        return super().reap()


class OwnScript:
    """The script that started this daemon."""

    def __init__(self, channel: int, pid: int) -> None:
        """``channel``: this daemon's end of the socket pair. ``pid``: of the script."""
        self._channel = channel
        self._pid = pid
        self._is_started = False

    async def __call__(self, descriptors: Sequence[int]) -> Started:
        """See :class:`daemon.worker.launch.Launch`: it is there, once."""
        if self._is_started:
            raise WorkerError("the script that started this daemon has left")
        self._is_started = True
        channel = socket.socket(fileno=self._channel)
        socket.send_fds(channel, [GREETING], descriptors)
        return _ScriptProcess(self._pid, channel)


class _ScriptProcess(Started):
    may_leave = True
    is_child = False

    def __init__(self, pid: int, channel: socket.socket) -> None:
        super().__init__(pid)
        self._channel = channel

    @property
    def output(self) -> IO[bytes] | None:
        return None

    async def connect(self) -> Streams:
        return await asyncio.open_unix_connection(sock=self._channel)

    def kill(self) -> None:
        """Do nothing: this daemon is the script's child."""

    def reap(self) -> int:
        """See :class:`Started`: whatever became of it, it has left."""
        return 0
