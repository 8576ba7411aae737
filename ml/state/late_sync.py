"""Makes written files durable beside whatever comes next, so that no round waits for a disk.

Until then a file that was written whole outlives the process (it is in the kernel's page cache),
but perhaps not a power cut; what must not go before it is done comes after it, as ``then``.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path


class LateSync:
    """One thread that syncs one set of files after the other.

    >>> import tempfile
    >>> sync = LateSync()
    >>> with tempfile.TemporaryDirectory() as directory, open(f"{directory}/state", "wb") as file:
    ...     sync.add(Path(directory), [file.fileno()], lambda problem: print(problem or "on disk"))
    ...     sync.close()
    on disk
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "sync")
        self._last: Future[None] | None = None

    def add(self, directory: Path, descriptors: Sequence[int], then: Callable[[str], None]) -> None:
        """Sync the open files that have names in ``directory``, then the names.

        Then ``then`` is called in that thread, with what went wrong; empty: nothing. Waits for
        those before, so no more than one set is under way.
        """
        self.wait()
        copies = [os.dup(descriptor) for descriptor in descriptors]
        self._last = self._thread.submit(self._sync, directory, copies, then)

    def wait(self) -> None:
        """Return once all is done. Raises what ``then`` raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """Return once all is done, and end the thread."""
        self.wait()
        self._thread.shutdown()

    def _sync(self, directory: Path, copies: list[int], then: Callable[[str], None]) -> None:
        problem = ""
        try:
            for descriptor in copies:
                os.fsync(descriptor)
            sync_directory(directory)
        except OSError as error:
            problem = error.strerror or str(error)
        finally:
            for descriptor in copies:
                os.close(descriptor)
        then(problem)


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
