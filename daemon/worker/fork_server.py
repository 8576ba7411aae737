"""How p2pd's own trainers and averagers start: as processes of their own, or as forks of one that
has loaded what they need, where many peers are on one machine (``p2pd demo``). docs/processes.md
says how.

The directory of the fork servers' sockets is named by :data:`VARIABLE` in the environment;
ml/fork_server.py is the other end. Else such a process is as one that this process started: it
speaks over a channel of its own, its output is read, and it ends with this process.

Example (daemon/worker/program.py)::

    launch=TrainerLaunch(TRAINING),
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from daemon.host.unix_socket import connect_control, peer_uid
from daemon.worker.launch import ModuleProcess, PythonModule, Started, Streams
from ml.fork_server import socket_path
from p2pd.channel import GREETING, HEAD, to_frame
from protocol.errors import WorkerError

VARIABLE = "P2PD_FORK_SERVERS"
CONNECT_S = 1.0
ANSWER_S = 120.0
"""Within which it answers: it may still load PyTorch, and a busy machine is slow to fork."""
CODE_S = 1.0
"""Within which it says how a process ended that has ended."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Forkable:
    """Starts a module: as a fork where there is a server for it, and else by itself."""

    module: PythonModule

    async def __call__(self, descriptors: Sequence[int]) -> Started:
        """See :class:`daemon.worker.launch.Launch`."""
        if (path := self.server()) is None:
            return await self.module(descriptors)
        if not os.path.exists(path):
            _log.warning(
                "there is no fork server at %s, though %s is set: %s starts by itself",
                path,
                VARIABLE,
                self.module.module,
            )
            return await self.module(descriptors)
        return await _fork(path, self.module, descriptors)

    def server(self) -> Path | None:
        """Where its fork server should be, if there is to be one."""
        directory = os.environ.get(VARIABLE)
        return socket_path(Path(directory), self.module.module) if directory else None


class TrainerLaunch:
    """Starts p2pd's own trainer: as a process of its own, or a fork where there is a server."""

    def __init__(self, module: PythonModule) -> None:
        self._launch = Forkable(module)
        self._begun: ModuleProcess | None = None

    def begin(self) -> None:
        """Start the next trainer before it is asked for: PyTorch takes longer to load than all of
        the daemon. It ends with this process, whether it was asked for or not."""
        if self._begun is None and self._launch.server() is None:
            self._begun = self._launch.module.begin()

    async def __call__(self, descriptors: Sequence[int]) -> Started:
        """See :class:`daemon.worker.launch.Launch`."""
        begun, self._begun = self._begun, None
        if begun is not None:
            try:
                begun.greet(descriptors)
            except OSError:  # it has ended meanwhile
                begun.discard()
            else:
                return begun
        return await self._launch(descriptors)


async def _fork(path: Path, module: PythonModule, descriptors: Sequence[int]) -> Started:
    words = [
        *module.arguments,
        "",
        *(f"{name}={value}" for name, value in module.variables(os.environ).items()),
    ]
    request = b"".join(os.fsencode(word) + b"\0" for word in words)
    with contextlib.ExitStack() as stack:
        failed = stack.enter_context(contextlib.ExitStack())
        server = _connect(path)
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
        passed = [theirs.fileno(), lifeline, written, directory]
        try:
            pid = await _ask(server, request, passed)
        except TimeoutError:
            raise WorkerError(
                f"the fork server at {path} does not answer within {ANSWER_S:g} s"
            ) from None
        except OSError as error:
            raise WorkerError(
                f"the fork server at {path} starts nothing ({error}): see what it printed"
            ) from error
        failed.pop_all()
    return _Forked(pid, server, ours, writing, output)


def _connect(path: Path) -> socket.socket:
    try:
        server = connect_control(path, CONNECT_S)
    except OSError as error:
        raise WorkerError(
            f"no fork server answers at {path}, where {VARIABLE} has one: {error.strerror or error}"
        ) from error
    if peer_uid(server) != os.geteuid():
        server.close()
        raise WorkerError(f"the fork server at {path} is another user's")
    return server


async def _ask(server: socket.socket, body: bytes, passed: Sequence[int]) -> int:
    """The process id of the fork. Raises :class:`OSError`."""
    loop = asyncio.get_running_loop()
    request = to_frame(0, body)
    server.setblocking(False)
    async with asyncio.timeout(ANSWER_S):
        socket.send_fds(server, [request[: HEAD.size]], passed)
        await loop.sock_sendall(server, request[HEAD.size :])
        answer = await loop.sock_recv(server, HEAD.size)
    if len(answer) < HEAD.size:
        raise ConnectionResetError("it hung up")
    _, pid = HEAD.unpack(answer)
    return int(pid)


class _Forked(Started):
    """The server waits for it, and not before this process is done with it."""

    def __init__(
        self,
        pid: int,
        server: socket.socket,
        channel: socket.socket,
        lifeline: int,
        output: int,
    ) -> None:
        super().__init__(pid)
        self._server = server
        self._channel = channel
        self._lifeline = lifeline
        self._output = open(output, "rb", buffering=0)  # noqa: SIM115 — closed by who reads it

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
        """See :class:`Started`. Where the server died, so did the fork."""
        os.close(self._lifeline)
        code = b""
        self._server.settimeout(CODE_S)
        with contextlib.suppress(OSError):  # so it is gone, or does not answer
            code = self._server.recv(4, socket.MSG_WAITALL)
        self._server.close()
        return int.from_bytes(code, "big", signed=True) if len(code) == 4 else -signal.SIGKILL
