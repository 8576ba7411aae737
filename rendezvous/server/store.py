"""Keeps the directory of a rendezvous, so that a restart does not lose it.

A store is told each change and writes behind: the registry never waits for it. A caller that must
know that a change is safe remembers its number and waits until that number is reported. A store
that several rendezvous share (rendezvous/server/redis_store.py) reports the others' changes as
well; the one here has a file to itself.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from protocol.errors import ConfigError
from rendezvous.server.directory import Change, Directory, StatementStored
from rendezvous.server.snapshot import (
    MAX_SNAPSHOT_BYTES,
    SnapshotError,
    decode_snapshot,
    encode_snapshot,
)
from transport.atomic_file import sync_directory, write_atomically

SAVE_INTERVAL_S = 10.0
"""How long a change may wait for others to be written with it, unless someone waits for it."""

_log = logging.getLogger(__name__)

OnSaved = Callable[[int, bool], None]
"""``on_saved(number, kept)``: all changes up to ``number`` are safe, or could not be written."""
OnForeign = Callable[[Change], None]
"""Another server that shares the store made this change."""


def nobody_else(change: Change) -> None:
    """The :data:`OnForeign` of a store that nobody shares."""


class Store(Protocol):
    """A store as the server needs it."""

    is_shared: bool
    """Whether others write to it, who want to hear of renewals too."""

    @property
    def saved_number(self) -> int:
        """The number of the last change that is safe."""

    async def load(self, *, now_ms: int) -> Directory:
        """What was kept; to be called once, first. Raises :class:`ConfigError`."""

    def keep(self, change: Change) -> int:
        """Take ``change``, without waiting; its number."""

    async def run(self, on_saved: OnSaved, on_foreign: OnForeign = nobody_else) -> None:
        """Write changes until :meth:`close`, and then what is left."""

    def close(self) -> None:
        """Let :meth:`run` come to its end."""


class SnapshotStore:
    """Memory, and a snapshot of all of it in one file that is replaced as a whole.

    >>> import tempfile
    >>> async def example(path):
    ...     store = SnapshotStore(path)
    ...     await store.load(now_ms=0)
    ...     store.keep(StatementStored(b"the swarm's id", b"its statement"))
    ...     store.close()
    ...     await store.run(lambda number, kept: print(f"{number} changes are safe: {kept}"))
    ...     return (await SnapshotStore(path).load(now_ms=0)).statements
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     asyncio.run(example(Path(directory) / "snapshot"))
    1 changes are safe: True
    {b"the swarm's id": b'its statement'}
    """

    is_shared = False

    def __init__(self, path: Path, *, save_interval_s: float = SAVE_INTERVAL_S) -> None:
        self._path = path
        self._save_interval_s = save_interval_s
        self._directory = Directory()
        self._number = 0
        self._saved_number = 0
        self._failing = False
        self._changed = asyncio.Event()
        self._urgent = asyncio.Event()
        self._closing = False

    async def load(self, *, now_ms: int) -> Directory:
        """What the snapshot holds; a damaged one is put aside, and nothing is there then."""
        try:
            self._directory = await asyncio.to_thread(self._read)
        except FileNotFoundError:
            pass
        except SnapshotError as error:
            aside = self._path.with_name(f"{self._path.name}.damaged-{now_ms}")
            self._path.rename(aside)
            sync_directory(self._path.parent)
            _log.error(
                "snapshot %s is damaged (%s): starting empty, kept as %s",
                self._path,
                error,
                aside.name,
            )
        except OSError as error:
            raise ConfigError(f"cannot read {self._path}: {error.strerror}") from error
        return Directory(dict(self._directory.statements), dict(self._directory.records))

    def keep(self, change: Change) -> int:
        """Take ``change``. A statement is written at once: someone waits for it."""
        self._directory.apply(change)
        self._number += 1
        self._changed.set()
        if isinstance(change, StatementStored):
            self._urgent.set()
        return self._number

    @property
    def saved_number(self) -> int:
        """The number of the last change that is safe."""
        return self._saved_number

    async def run(self, on_saved: OnSaved, on_foreign: OnForeign = nobody_else) -> None:
        """Write changes until :meth:`close`, and then what is left."""
        while not self._closing or (self._number > self._saved_number and not self._failing):
            await self._changed.wait()
            if not self._closing:
                await self._wait_for_more()
            self._changed.clear()
            self._urgent.clear()
            await self._save(on_saved)

    def close(self) -> None:
        """Let :meth:`run` come to its end."""
        self._closing = True
        self._changed.set()
        self._urgent.set()

    async def _wait_for_more(self) -> None:
        try:
            async with asyncio.timeout(self._save_interval_s):
                await self._urgent.wait()
        except TimeoutError:
            return  # Long enough.

    async def _save(self, on_saved: OnSaved) -> None:
        number = self._number
        if number == self._saved_number:
            return
        copy = Directory(dict(self._directory.statements), dict(self._directory.records))
        try:
            await asyncio.to_thread(self._write, copy)
        except OSError as error:
            if not self._failing:
                _log.error("cannot write %s: %s; trying again", self._path, error.strerror)
            self._failing = True
            self._changed.set()
            on_saved(number, False)
            return
        if self._failing:
            _log.info("%s is written again", self._path)
        self._failing = False
        self._saved_number = number
        on_saved(number, True)

    def _read(self) -> Directory:
        if self._path.stat().st_size > MAX_SNAPSHOT_BYTES:
            raise SnapshotError(f"larger than {MAX_SNAPSHOT_BYTES} bytes")
        return decode_snapshot(self._path.read_bytes())

    def _write(self, directory: Directory) -> None:
        write_atomically(self._path, encode_snapshot(directory))
