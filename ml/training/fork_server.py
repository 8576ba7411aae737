"""Trainers of many peers on one machine: ``python -m ml.training.fork_server SOCKET``.

PyTorch takes seconds of a core to load. This process loads it once, and each trainer that a daemon
asks for is a fork of it, which begins at once and shares the memory of what was loaded. Else it is
a trainer as any other (ml/training/__main__.py). daemon/worker/fork_server.py is who asks.

A daemon's connection lives as long as its trainer: when the trainer ends, its exit code is written
there; when the daemon closes it, what is left of the trainer is killed. Only then is the trainer
waited for, so its process id is nobody else's before. All trainers end with this process, and this
process with the one that started it.

Example (daemon/cli/demo/demo.py)::

    stack, "trainers", *python_arguments("ml.training.fork_server"), str(socket_path)
"""

import contextlib
import json
import logging
import os
import random
import selectors
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from p2pd.channel import HEAD
from p2pd.importing import collector_off
from p2pd.process import end_with_parent

DESCRIPTORS = 4
"""The trainer's: its channel, its lifeline, where its output goes, and its working directory."""
ASK_S = 5.0
"""Within which a daemon says all that it wants."""
MAX_REQUEST_BYTES = 4 << 20
READY = "ready"

_log = logging.getLogger(__name__)


class Place:
    """What a trainer's process gets to see of the daemon that asked for it."""

    def __init__(self, request: bytes, descriptors: list[int]) -> None:
        """``request``: the environment as a JSON object. Raises :class:`ValueError`."""
        told = json.loads(request)
        if not isinstance(told, dict):
            raise ValueError("no JSON object")
        self.variables = {str(name): str(value) for name, value in told.items()}
        self.channel, self.lifeline, self.output, self.directory = descriptors

    def enter(self) -> None:
        """Have this process, a fork, be as one that the daemon started itself."""
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(self.output, 1)
        os.dup2(self.output, 2)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 — for good
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(self.variables)
        os.fchdir(self.directory)
        os.close(self.directory)
        random.seed()
        os.close(self.output)
        sys.argv[1:] = [str(self.channel), str(self.lifeline)]

    def leave(self) -> None:
        """Close this process's copies of the descriptors."""
        for descriptor in (self.channel, self.lifeline, self.output, self.directory):
            os.close(descriptor)


@dataclass(slots=True, eq=False)
class _Trainer:
    """One that runs, or has ended and is still its daemon's."""

    pid: int
    handle: int
    """Of the process (pidfd_open(2))."""
    daemon: socket.socket
    is_over: bool = False


class ForkServer:
    """Answers on one socket until the process ends."""

    def __init__(self, path: Path) -> None:
        """Raises :class:`OSError`."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        os.chdir(path.parent)  # The path may be longer than the 107 bytes that a socket's can be.
        mask = os.umask(0o177)
        try:
            self._listener.bind(path.name)
        finally:
            os.umask(mask)
        self._listener.listen()
        self._selector = selectors.EpollSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

    def serve(self) -> None:
        """For ever."""
        while True:
            for key, _ in self._selector.select():
                trainer: _Trainer | None = key.data
                if trainer is None:
                    self._answer(self._listener.accept()[0])
                elif not trainer.is_over:
                    self._look_at(trainer, key.fd)

    def _answer(self, daemon: socket.socket) -> None:
        daemon.settimeout(ASK_S)
        try:
            place = _read_request(daemon)
        except (OSError, ValueError) as error:
            _log.warning("a request that cannot be carried out: %s", error)
            daemon.close()
            return
        own = [self._selector.fileno(), *(key.fd for key in self._selector.get_map().values())]
        pid = os.fork()
        if not pid:
            _become_trainer(place, [*own, daemon.fileno()])
        os.setpgid(pid, pid)
        place.leave()
        trainer = _Trainer(pid, os.pidfd_open(pid), daemon)
        for descriptor in (trainer.handle, daemon):
            self._selector.register(descriptor, selectors.EVENT_READ, trainer)
        with contextlib.suppress(OSError):  # gone again: seen next
            daemon.sendall(HEAD.pack(0, pid))

    def _look_at(self, trainer: _Trainer, descriptor: int) -> None:
        if descriptor == trainer.handle:
            self._selector.unregister(trainer.handle)
            ended = os.waitid(os.P_PIDFD, trainer.handle, os.WEXITED | os.WNOWAIT)
            assert ended is not None
            code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            with contextlib.suppress(OSError):  # the daemon is gone too: seen next
                trainer.daemon.sendall(code.to_bytes(4, "big", signed=True))
            return
        # The daemon has nothing more to say: it is done with the trainer, or gone.
        trainer.is_over = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(trainer.pid, signal.SIGKILL)
        os.waitpid(trainer.pid, 0)
        self._selector.unregister(trainer.daemon)
        with contextlib.suppress(KeyError):  # so it had ended before
            self._selector.unregister(trainer.handle)
        trainer.daemon.close()
        os.close(trainer.handle)


def _read_request(connection: socket.socket) -> Place:
    head, descriptors, _, _ = socket.recv_fds(connection, HEAD.size, DESCRIPTORS)
    try:
        if len(head) != HEAD.size or len(descriptors) != DESCRIPTORS:
            raise ValueError(f"{len(head)} bytes and {len(descriptors)} descriptors come first")
        length, _ = HEAD.unpack(head)
        if length > MAX_REQUEST_BYTES:
            raise ValueError(f"{length} bytes are announced")
        request = bytearray()
        while len(request) < length:
            piece = connection.recv(length - len(request))
            if not piece:
                raise ValueError("it ends in the middle")
            request += piece
        return Place(bytes(request), list(descriptors))
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _become_trainer(place: Place, others: list[int]) -> None:
    """In the fork: never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        for descriptor in others:
            os.close(descriptor)
        place.enter()
        from ml.training.__main__ import main

        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    """Serve."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started it to act on
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s", level=logging.INFO)
    with collector_off():
        from ml.training.compiler_on_demand import leave_compiler_until_asked

        leave_compiler_until_asked()
        import ml.training.__main__
        import ml.training.trainer  # noqa: F401 — what trainers need
    server = ForkServer(Path(sys.argv[1]))
    print(READY, flush=True)
    server.serve()


if __name__ == "__main__":
    main()
