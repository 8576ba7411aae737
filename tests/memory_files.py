"""Files in memory: what is written a thousand times in a test, or a measurement, wears no disk and
waits for none."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM_BYTES = 1 << 30
"""With less of it free, as in many containers, the files are on disk."""


@contextmanager
def memory_directory() -> Iterator[Path]:
    """A new directory, which is gone afterwards."""
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM_BYTES
    with tempfile.TemporaryDirectory(prefix="p2pd-", dir=MEMORY if has_room else None) as name:
        yield Path(name)
