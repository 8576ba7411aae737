"""The daemon that a script trains with: the one that started it, or one that it starts.

A daemon that a script started lives as long as the script does, or until it leaves; one that was
killed is started again, and goes on from its state directory.
"""

import abc
import logging
import os
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Sequence

from p2pd.channel import Channel
from p2pd.script.errors import SwarmError
from p2pd.script.place import connect, p2pd_command

STOP_S = 60.0
KEPT_LINES = 20

logger = logging.getLogger("p2pd")


class Daemon(abc.ABC):
    """What a script needs of it."""

    can_restart = False

    @abc.abstractmethod
    def connect(self) -> Channel:
        """A channel to it; it is started where it does not run. Raises :class:`SwarmError`."""

    @abc.abstractmethod
    def last_words(self) -> str:
        """Why it ended, if by its own decision; empty: it was killed."""

    @abc.abstractmethod
    def stop(self) -> None:
        """End it, where it is this script's own."""


class FoundDaemon(Daemon):
    """The one that started this script."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path

    def connect(self) -> Channel:
        """See :class:`Daemon`: once."""
        return connect(self._socket_path)

    def last_words(self) -> str:
        """See :class:`Daemon`."""
        return ""

    def stop(self) -> None:
        """See :class:`Daemon`: it goes on until this process has ended."""


class OwnDaemon(Daemon):
    """One that this script starts: ``p2pd WORDS``."""

    can_restart = True

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)
        self._process: subprocess.Popen[str] | None = None
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._reading = threading.Thread()
        self.output = ""
        """What it printed on standard output, once it has ended."""

    def connect(self) -> Channel:
        """See :class:`Daemon`."""
        self.stop()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*p2pd_command(os.environ), *self._words, "--script", str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    process_group=0,  # Ctrl-C is for the script to act on
                )
            except OSError as error:
                ours.close()
                raise SwarmError(f"p2pd does not start: {error}") from error
        self._reading = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reading.start()
        return Channel(ours.detach())

    def last_words(self) -> str:
        """See :class:`Daemon`."""
        self._reading.join(STOP_S)
        if self._process is None or self._process.wait(STOP_S) < 0:
            return ""  # it was killed
        said = [line for line in self._lines if line.startswith("p2pd: ")]
        return said[-1].removeprefix("p2pd: ") if said else (self._lines or [""])[-1]

    def wait_end(self) -> int:
        """Its exit code, once it has ended by itself. Raises :class:`SwarmError`."""
        assert self._process is not None
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired as error:
            raise SwarmError(f"p2pd does not end within {STOP_S:.0f} s") from error
        self._reading.join(STOP_S)
        return code

    def stop(self) -> None:
        """See :class:`Daemon`."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reading.join(STOP_S)

    def _read(self, process: "subprocess.Popen[str]") -> None:
        """Its log goes into this script's, so that it never waits for room."""
        assert process.stdout is not None
        assert process.stderr is not None
        printing = threading.Thread(target=self._keep_output, args=(process,), daemon=True)
        printing.start()
        with process.stderr:
            for line in process.stderr:
                self._lines.append(line.rstrip())
                logger.info("%s", line.rstrip())
        printing.join()

    def _keep_output(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        last = ""
        with process.stdout:
            for line in process.stdout:
                last = line
        self.output = last
