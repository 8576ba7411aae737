"""Trainers that a fork server starts, which has PyTorch loaded: where many peers are on one machine
(``p2pd demo``). docs/processes.md says how.

Its socket is named by :data:`VARIABLE` in the environment; ml/training/fork_server.py is the other
end. Else such a trainer is as one that this process started: it speaks over a channel of its own,
its output is read, and it ends with this process.

Example (daemon/worker/program.py)::

    launch=TrainerLaunch(),
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from daemon.host.unix_socket import connect_control
from daemon.worker.launch import PythonModule, Started, Streams
from p2pd.channel import GREETING, HEAD, to_frame
from protocol.errors import WorkerError

VARIABLE = "P2PD_FORK_SERVER"
ANSWER_S = 30.0
"""Within which it answers: a busy machine may be slow to fork."""
CODE_S = 1.0
"""Within which it says how a trainer ended that has ended."""


class TrainerLaunch:
    """Starts p2pd's own trainer: as a process of its own, or a fork where there is a server."""

    def __init__(self) -> None:
        self._module = PythonModule("ml.training")

    def __call__(self, descriptors: Sequence[int]) -> Started:
        """See :class:`daemon.worker.launch.Launch`."""
        path = os.environ.get(VARIABLE)
        return _fork(path, descriptors) if path else self._module(descriptors)


def _fork(path: str, descriptors: Sequence[int]) -> Started:
    with contextlib.ExitStack() as stack:
        failed = stack.enter_context(contextlib.ExitStack())
        try:
            server = connect_control(Path(path), ANSWER_S)
        except OSError as error:
            raise WorkerError(
                f"no fork server answers at {path}, which {VARIABLE} names: {error.strerror}"
            ) from error
        failed.callback(server.close)
        ours, theirs = socket.socketpair()
        stack.enter_context(theirs)
        failed.callback(ours.close)
        socket.send_fds(ours, [GREETING], descriptors)
        lifeline, writing = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, lifeline)
        failed.callback(os.close, writing)
        output, written = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, written)
        failed.callback(os.close, output)
        directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, directory)
        request = to_frame(0, json.dumps(dict(os.environ)).encode())
        passed = [theirs.fileno(), lifeline, written, directory]
        socket.send_fds(server, [request[: HEAD.size]], passed)
        server.sendall(request[HEAD.size :])
        answer = server.recv(HEAD.size, socket.MSG_WAITALL)
        if len(answer) < HEAD.size:
            raise WorkerError(f"the fork server at {path} starts no trainer: see its log")
        _, pid = HEAD.unpack(answer)
        server.settimeout(CODE_S)
        failed.pop_all()
    return _Forked(pid, server, ours, writing, open(output, "rb", buffering=0))


class _Forked(Started):
    """The server waits for it, and not before this process is done with it."""

    def __init__(
        self,
        pid: int,
        server: socket.socket,
        channel: socket.socket,
        lifeline: int,
        output: IO[bytes],
    ) -> None:
        super().__init__(pid)
        self._server = server
        self._channel = channel
        self._lifeline = lifeline
        self._output = output

    @property
    def output(self) -> IO[bytes]:
        """See :class:`Started`."""
        return self._output

    async def connect(self) -> Streams:
        """See :class:`Started`."""
        return await asyncio.open_unix_connection(sock=self._channel)

    def kill(self) -> None:
        """See :class:`Started`: its number is its own while the server's connection is open."""
        if self._server.fileno() >= 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """See :class:`Started`. Where the server died, so did the trainer."""
        os.close(self._lifeline)
        code = b""
        with contextlib.suppress(OSError):  # so it is gone, or does not answer
            code = self._server.recv(4, socket.MSG_WAITALL)
        self._server.close()
        return int.from_bytes(code, "big", signed=True) if len(code) == 4 else -signal.SIGKILL
