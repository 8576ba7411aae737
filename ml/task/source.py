"""The bytes of a task file, bounded and with their digest. Imports no torch, so the daemon may."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import ConfigError

MAX_TASK_FILE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class TaskSource:
    """What a task file held when it was read; nothing of it has run."""

    text: bytes
    sha256: bytes


def read_task_source(path: Path) -> TaskSource:
    """Read a task file. Raises :class:`ConfigError` saying why it cannot be read.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".py") as file:
    ...     file.write(b"BATCH_SIZE = 32")
    ...     file.flush()
    ...     read_task_source(Path(file.name)).text
    15
    b'BATCH_SIZE = 32'
    >>> read_task_source(Path("nowhere.py"))
    Traceback (most recent call last):
    protocol.errors.ConfigError: task file nowhere.py: No such file or directory
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_TASK_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"task file {path}: {error.strerror}") from error
    if len(text) > MAX_TASK_FILE_BYTES:
        raise ConfigError(f"task file {path} is larger than {MAX_TASK_FILE_BYTES} bytes")
    return TaskSource(text, hashlib.sha256(text).digest())
