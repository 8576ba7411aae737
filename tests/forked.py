"""Programs as forks of a process that has loaded all of p2pd but training.

To load p2pd takes a second of a core, which is most of what a command or a small swarm costs. A
fork is a process with a session, a directory, an environment, standard streams and, where asked
for, a network namespace of its own. What it hides is how a program starts (the order of imports,
and their warnings) and how Python ends. Tests of these, and of what processes cost, start the
program itself.
"""

import ctypes
import gc
import io
import logging
import multiprocessing
import multiprocessing.connection
import os
import pkgutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from multiprocessing.context import ForkServerContext
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

import daemon.cli

PACKAGES = ("daemon", "protocol", "relay", "rendezvous", "transport")
"""Loaded with all that is in them."""
NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000
"""A network namespace (setns(2))."""
KILL_S = 30.0
_ONE_AT_A_TIME = threading.Lock()
"""Whoever starts a process looks at whether others have ended, and that is told once."""

Streams = tuple[IO[Any], IO[Any], IO[Any]]
"""For standard input, output and error."""


def run_p2pd() -> int:
    """The command, with the words of ``sys.argv``."""
    return daemon.cli.main()


@dataclass(frozen=True)
class Place:
    """Where a fork runs."""

    directory: Path
    environ: Mapping[str, str]
    namespace: str = ""
    """One of ip-netns(8)."""
    strict: bool = False
    """Whether warnings are errors."""


class Fork:
    """A program that runs or has ended."""

    def __init__(
        self,
        main: Callable[[], int | None],
        words: Sequence[str | Path],
        place: Place,
        streams: Streams,
    ) -> None:
        """``main``: a module's function, which reads ``words`` in ``sys.argv`` and returns an exit
        code."""
        sent = [_Sent(stream.fileno()) for stream in streams]
        arguments = (main, list(map(str, words)), place, *sent)
        self._process = _server().Process(target=_become, args=arguments, daemon=True)
        with _ONE_AT_A_TIME:
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self._code: int | None = None

    def ended(self, within_s: float = 0.0) -> int | None:
        """Its exit code (negative: the signal that killed it); None while it runs."""
        if self._code is not None:
            return self._code
        multiprocessing.connection.wait([self._process.sentinel], within_s)
        with _ONE_AT_A_TIME:
            self._code = self._process.exitcode
            if self._code is not None:
                self._process.close()
        return self._code

    def kill(self) -> None:
        """Kill it, and return when it has ended."""
        if self.ended() is None:
            self._process.kill()
        assert self.ended(KILL_S) is not None

    def terminate(self) -> None:
        """Tell it to end (SIGTERM), unless it has."""
        if self.ended() is None:
            self._process.terminate()


def run_forked(
    main: Callable[[], int | None],
    words: Sequence[str | Path],
    place: Place,
    within_s: float,
    stdin: str = "",
) -> "subprocess.CompletedProcess[str]":
    """A program to its end. Raises :class:`subprocess.TimeoutExpired`."""
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as errors,
    ):
        given.write(stdin)
        given.seek(0)
        fork = Fork(main, words, place, (given, out, errors))
        code = fork.ended(within_s)
        if code is None:
            fork.kill()
            raise subprocess.TimeoutExpired(list(map(str, words)), within_s)
        out.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(list(map(str, words)), code, out.read(), errors.read())


@cache
def _server() -> ForkServerContext:
    """This process's one. It starts with the first fork, and ends when all that it started have
    ended and so has this process."""
    context = multiprocessing.get_context("forkserver")
    modules = (
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}.")
        if not module.name.endswith("__main__")
    )
    context.set_forkserver_preload([__name__, *modules])
    return context


class _Sent:
    """A descriptor, which is a number again where it arrives."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self._descriptor),)


def _received(sent: Any) -> int:
    descriptor: int = sent.detach()
    return descriptor


def _become(main: Callable[[], int | None], words: list[str], place: Place, *streams: int) -> None:
    """In the fork: be as a process that was just started."""
    gc.freeze()  # What is loaded stays.
    os.setsid()
    if place.namespace:
        _enter_namespace(place.namespace)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 — for good
    sys.stdout, sys.stderr = _written(1, "strict"), _written(2, "backslashreplace")
    logging.root.handlers.clear()
    os.chdir(place.directory)
    os.environ.clear()
    os.environ.update(place.environ)
    time.tzset()
    sys.argv[:] = [sys.argv[0], *words]
    if place.strict:
        warnings.simplefilter("error")
    sys.exit(main())


def _written(descriptor: int, errors: str) -> io.TextIOWrapper:
    # As Python's own: of errors each line is written at once.
    buffering = 1 if descriptor == 2 else -1
    return open(descriptor, "w", buffering=buffering, errors=errors, closefd=False)


def _enter_namespace(name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with (NAMESPACES / name).open() as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns", name)
