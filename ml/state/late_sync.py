"""Makes written files durable beside whatever comes next, so that no round waits for a disk.

Until then a file that was written whole outlives the process (it is in the kernel's page cache),
but perhaps not a power cut; what must not go before it is done comes after it, as ``then``.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

_Files = tuple[Path, Sequence[int], Callable[[str], None]]
"""Directory, open files, and what is done then."""


class LateSync:
    """One thread that syncs one set of files at a time. Of those that come meanwhile the newest
    alone is synced next, so that no disk is too slow for whoever adds.

    >>> import tempfile
    >>> sync = LateSync()
    >>> with tempfile.TemporaryDirectory() as directory, open(f"{directory}/state", "wb") as file:
    ...     sync.add(Path(directory), [file.fileno()], lambda problem: print(problem or "on disk"))
    ...     sync.close()
    on disk
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "sync")
        self._lock = threading.Lock()
        self._next: _Files | None = None
        self._is_running = False
        self._run: Future[None] | None = None

    def add(self, directory: Path, descriptors: Sequence[int], then: Callable[[str], None]) -> None:
        """Sync the open files that have names in ``directory``, then the names.

        Then ``then`` is called in that thread, with what went wrong; empty: nothing. It is never
        called where another set came before this one's turn.
        """
        copies = [os.dup(descriptor) for descriptor in descriptors]
        with self._lock:
            passed_over, self._next = self._next, (directory, copies, then)
            if not self._is_running:
                self._is_running = True
                self._run = self._thread.submit(self._sync_all)
        if passed_over is not None:
            _close(passed_over[1])

    def wait(self) -> None:
        """Return once all is done. Raises what ``then`` raised."""
        run, self._run = self._run, None
        if run is not None:
            run.result()

    def close(self) -> None:
        """Return once all is done, and end the thread."""
        self.wait()
        self._thread.shutdown()

    def _sync_all(self) -> None:
        while (files := self._take()) is not None:
            directory, descriptors, then = files
            problem = ""
            try:
                for descriptor in descriptors:
                    os.fsync(descriptor)
                sync_directory(directory)
            except OSError as error:
                problem = error.strerror or str(error)
            finally:
                _close(descriptors)
            try:
                then(problem)
            except BaseException:
                self._is_running = False  # The next to be added begins anew.
                raise

    def _take(self) -> _Files | None:
        with self._lock:
            files, self._next = self._next, None
            self._is_running = files is not None
            return files


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
