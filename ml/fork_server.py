"""Trainers or averagers of many peers on one machine: ``python -m ml.fork_server FOLDER MODULE``.

PyTorch takes seconds of a core to load, and NumPy a third of one. This process loads a program once
(:data:`PROGRAMS` has which), and each that a daemon asks for is a fork of it, which begins at once
and shares the memory of what was loaded. Else it is a process as any other
(ml/training/__main__.py, ml/averaging/__main__.py). daemon/worker/fork_server.py is who asks, at
the socket in the folder that is called like the module.

A daemon's connection lives as long as its process: when that ends, its exit code is written there;
when the daemon closes it, what is left of the process is killed. Only after both is it waited for,
so its process id is nobody else's before. All of them end with this process, and this process with
the one that started it.

Example (daemon/cli/demo/demo.py)::

    words = (*python_arguments("ml.fork_server"), str(self._directory), module)
"""

import argparse
import contextlib
import errno
import io
import logging
import os
import selectors
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ml.averaging.environment import averager_environment
from p2pd.channel import HEAD
from p2pd.importing import collector_off
from p2pd.process import end_with_parent

DESCRIPTORS = 4
"""The process's: its channel, its lifeline, where its output goes, and its working directory."""
ASK_S = 5.0
"""A daemon that says nothing for so long while it asks is left alone."""
MAX_REQUEST_BYTES = 6 << 20
"""No process has a larger environment (execve(2))."""
FULL_S = 0.1
"""How long to wait for a descriptor when all are taken."""
READY = "ready"

_log = logging.getLogger(__name__)


class Place:
    """What a process gets to see of the daemon that asked for it."""

    def __init__(self, request: bytes, descriptors: list[int]) -> None:
        """``request``: words for the program's command line, each with a zero byte behind it; an
        empty one; and the environment, NAME=VALUE, each with one. Raises :class:`ValueError`."""
        *words, end = request.split(b"\0")
        if end or b"" not in words:
            raise ValueError("no words and environment")
        given = words.index(b"")
        self.words = [os.fsdecode(word) for word in words[:given]]
        self.variables = {}
        for variable in words[given + 1 :]:
            name, equals, value = variable.partition(b"=")
            if not (name and equals):
                raise ValueError("no environment")
            self.variables[name] = value
        self.channel, self.lifeline, self.output, self.directory = descriptors

    def enter(self) -> None:
        """Have this process, a fork, be as one that the daemon started itself."""
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(self.output, 1)
        os.dup2(self.output, 2)
        sys.stdout, sys.stderr = _printed(1, "strict"), _printed(2, "backslashreplace")
        logging.root.handlers.clear()  # The program has its own.
        os.environb.clear()
        os.environb.update(self.variables)
        time.tzset()
        os.fchdir(self.directory)
        os.close(self.directory)
        os.close(self.output)
        # Else all would draw the same. Python's own generator sees to that itself.
        if (drawing := sys.modules.get("numpy.random")) is not None:
            drawing.seed()
        if (torch := sys.modules.get("torch")) is not None:
            torch.default_generator.seed()
        sys.argv[1:] = [str(self.channel), str(self.lifeline), *self.words]

    def leave(self) -> None:
        """Close this process's copies of the descriptors."""
        for descriptor in (self.channel, self.lifeline, self.output, self.directory):
            os.close(descriptor)


def _printed(descriptor: int, errors: str) -> io.TextIOWrapper:
    """A standard stream as Python makes it where PYTHONUNBUFFERED is set."""
    raw = open(descriptor, "wb", buffering=0, closefd=False)  # noqa: SIM115 — for good
    return io.TextIOWrapper(raw, errors=errors, write_through=True)


@dataclass(slots=True, eq=False)
class _Fork:
    """One that runs or whose daemon still has it: it is waited for when neither holds."""

    pid: int
    daemon: socket.socket
    handle: int
    """Of the process (pidfd_open(2))."""
    has_ended: bool = False
    is_let_go: bool = False


class ForkServer:
    """Answers on one socket until the process ends."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.EpollSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

    def serve(self, program: Callable[[], None]) -> None:
        """For ever. ``program``: what each fork does in its place."""
        while True:
            for key, _ in self._selector.select():
                fork: _Fork | None = key.data
                if fork is None:
                    self._answer(program)
                elif key.fd == fork.handle:
                    self._note_end(fork)
                else:
                    self._let_go(fork)

    def _answer(self, program: Callable[[], None]) -> None:
        """What goes wrong here is one daemon's affair: with this process all of them would end."""
        try:
            daemon, _ = self._listener.accept()
        except OSError as error:
            _log.warning("nobody more can be let in: %s", error)
            time.sleep(FULL_S)
            return
        daemon.settimeout(ASK_S)
        try:
            place = _read_request(daemon)
        except (OSError, ValueError) as error:
            _log.warning("a request that cannot be carried out: %s", error)
            daemon.close()
            return
        own_pid = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            _log.error("no process can be started: %s", error)
            place.leave()
            daemon.close()
            return
        if not pid:
            end_with_parent()
            if os.getppid() != own_pid:
                os._exit(1)  # It had ended before the kernel was asked.
            known = (key.fd for key in self._selector.get_map().values())
            _become(program, place, [*known, self._selector.fileno(), daemon.fileno()])
        place.leave()
        self._hold(_Fork(pid, daemon, os.pidfd_open(pid)))

    def _hold(self, fork: _Fork) -> None:
        os.setpgid(fork.pid, fork.pid)
        for descriptor in (fork.handle, fork.daemon):
            self._selector.register(descriptor, selectors.EVENT_READ, fork)
        with contextlib.suppress(OSError):  # gone again: seen next
            fork.daemon.sendall(HEAD.pack(0, fork.pid))

    def _note_end(self, fork: _Fork) -> None:
        ended = os.waitid(os.P_PIDFD, fork.handle, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        self._selector.unregister(fork.handle)
        os.close(fork.handle)
        fork.has_ended = True
        if fork.is_let_go:
            os.waitpid(fork.pid, 0)
            return
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        with contextlib.suppress(OSError):  # the daemon is gone too: seen next
            fork.daemon.sendall(code.to_bytes(4, "big", signed=True))

    def _let_go(self, fork: _Fork) -> None:
        """The daemon has nothing more to say: it is done with the process, or gone."""
        with contextlib.suppress(ProcessLookupError):  # it may have gone to another group
            os.killpg(fork.pid, signal.SIGKILL)
        self._selector.unregister(fork.daemon)
        fork.daemon.close()
        fork.is_let_go = True
        if fork.has_ended:
            os.waitpid(fork.pid, 0)


def socket_path(directory: Path, module: str) -> Path:
    """Where the fork server of a module listens."""
    return directory / f"{module}.sock"


def listen(path: Path) -> socket.socket:
    """A socket at ``path`` for this user alone, in place of one at which nobody listens any more.

    Goes to its folder, since the path may be longer than a socket's can be. Raises
    :class:`OSError`.
    """
    os.chdir(path.parent)
    if _is_left_over(path.name):
        os.unlink(path.name)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(path.name)
        listener.listen()
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _is_left_over(name: str) -> bool:
    if not os.path.lexists(name) or not stat.S_ISSOCK(os.lstat(name).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        return caller.connect_ex(name) == errno.ECONNREFUSED


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


def _become(program: Callable[[], None], place: Place, others: list[int]) -> NoReturn:
    """In the fork, which ends as any Python process does: no ``except`` may stand around this."""
    os.setpgid(0, 0)
    for descriptor in others:
        os.close(descriptor)
    place.enter()
    program()
    sys.exit()


def _load_trainer() -> Callable[[], None]:
    from ml.training.compiler_on_demand import leave_compiler_until_asked

    leave_compiler_until_asked()
    import numpy.random  # noqa: F401 — else each fork would load it

    import ml.training.trainer  # noqa: F401 — what it imports as it begins
    from ml.training.__main__ import main

    return main


def _load_averager() -> Callable[[], None]:
    from ml.averaging.__main__ import main

    return main


PROGRAMS = {"ml.training": _load_trainer, "ml.averaging": _load_averager}
"""Each loads a program, and returns what becomes it."""


def _see_little() -> None:
    """Begin anew where the environment has more than is an averager's: forks can read it all."""
    wanted = averager_environment(os.environ)
    if os.environ != wanted:
        os.execve(sys.executable, sys.orig_argv, wanted)


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(
        prog="python -m ml.fork_server",
        description="Start the trainers or averagers of many peers: docs/processes.md.",
    )
    parser.add_argument("directory", type=Path, help="what P2PD_FORK_SERVERS names for them")
    parser.add_argument("module", choices=PROGRAMS)
    arguments = parser.parse_args()
    path = socket_path(arguments.directory, arguments.module)
    if arguments.module == "ml.averaging":
        _see_little()
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started it to act on
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s", level=logging.INFO)
    try:
        listener = listen(path)  # Who comes before all is loaded waits.
    except OSError as error:
        sys.exit(f"no fork server can listen at {path}: {error.strerror}")
    with collector_off():
        program = PROGRAMS[arguments.module]()
    print(READY, flush=True)
    ForkServer(listener).serve(program)


if __name__ == "__main__":
    main()
