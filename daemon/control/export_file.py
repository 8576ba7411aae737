"""The target of an export: an ordinary file is written whole or not at all, anything else as it is.

Invariant: what is there under the name stays what it is. A regular file keeps its mode and gets new
content in one step; a link stays a link, and the file that it leads to is written; a device or a
pipe is written into, and never replaced.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import P2PDError

_LIVE_PLACES = ("/dev/", "/proc/")
"""A file there stands for something that is open already."""


class ExportFileError(P2PDError):
    """The file to export to cannot be written."""


@contextlib.contextmanager
def written_file(destination: Path) -> Iterator[int]:
    """A descriptor to write to; a regular file takes its new content if the block ends well.

    Raises :class:`ExportFileError`.

    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with written_file(Path(directory, "model.safetensors")) as descriptor:
    ...         write_all(descriptor, b"tensors")
    ...     os.listdir(directory)
    7
    ['model.safetensors']
    """
    try:
        if is_stream(destination):
            with open(destination, "wb", buffering=0) as stream:
                yield stream.fileno()
        else:
            with _whole_file(Path(os.path.realpath(destination))) as descriptor:
                yield descriptor
    except OSError as error:
        raise ExportFileError(f"cannot write {destination}: {error.strerror}") from error


def write_all(descriptor: int, data: bytes) -> int:
    """Write all of ``data``, also where a pipe takes it bit by bit; how much it was."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return len(data)


def is_stream(destination: Path) -> bool:
    """Whether it is there and no ordinary file, but a device, a pipe or what is open already."""
    try:
        mode = destination.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        return False
    return not stat.S_ISREG(mode) or os.path.abspath(destination).startswith(_LIVE_PLACES)


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[int]:
    if path.is_dir():
        raise IsADirectoryError(0, "it is a directory")
    temporary: str | None = None
    # A short name: the destination's may be as long as the file system allows.
    descriptor, temporary = tempfile.mkstemp(prefix=".p2pd-", dir=path.parent)
    try:
        try:
            os.fchmod(descriptor, _mode_for(path))
            yield descriptor
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        temporary = None
    finally:
        if temporary is not None:
            os.unlink(temporary)


def _mode_for(path: Path) -> int:
    """The mode that the file had. A new one's follows the umask, since a model is an ordinary
    file."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask
