"""Directories for what is needed for a moment."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import ConfigError


@contextlib.contextmanager
def scratch_directory(prefix: str) -> Iterator[Path]:
    """A directory that is gone afterwards. Raises :class:`ConfigError` where none can be made.

    >>> with scratch_directory("p2pd-demo-") as directory:
    ...     directory.is_dir()
    True
    >>> directory.exists()
    False
    """
    try:
        directory = tempfile.TemporaryDirectory(prefix=prefix)
    except OSError as error:
        raise ConfigError(
            f"no directory for temporary files can be written ({error.strerror}): set TMPDIR to one"
        ) from error
    with directory as path:
        yield Path(path)
