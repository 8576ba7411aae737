"""The unix socket of the control API: binding it, connecting to it, and who is at the other end.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as directory:
...     path = Path(directory, "control.sock")
...     with listen_control(path), connect_control(path, timeout_s=5.0) as connection:
...         peer_uid(connection) == os.geteuid(), oct(path.stat().st_mode & 0o777)
(True, '0o600')
"""

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import ConfigError

MAX_SOCKET_PATH_BYTES = 107
"""``sun_path`` has 108 bytes, the last one is zero (unix(7))."""

_UCRED = struct.Struct("3i")
_BACKLOG = 16


@contextlib.contextmanager
def _short_address(path: Path) -> Iterator[str]:
    """An address of ``path`` that fits into ``sun_path``, valid inside the ``with``."""
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        yield os.fspath(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def listen_control(path: Path) -> socket.socket:
    """A listening socket of mode 0600 at ``path``, in place of one that a dead daemon left.

    Only call it while holding the lock of the state directory. Raises :class:`ConfigError`.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise ConfigError(f"{path} is in the way of the control socket: move it away")
            path.unlink()
        with _short_address(path) as address:
            listener.bind(address)
        # Between bind and chmod the directory's mode, 0700, keeps others out.
        path.chmod(0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot make the control socket {path}: {error.strerror}") from error
    except ConfigError:
        listener.close()
        raise
    return listener


def connect_control(path: Path, timeout_s: float) -> socket.socket:
    """A connection to the process that listens at ``path``. Raises :class:`OSError`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        with _short_address(path) as address:
            connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def peer_uid(connection: socket.socket) -> int:
    """The user id of the process at the other end, as the kernel knows it (SO_PEERCRED)."""
    return _credentials(connection)[1]


def peer_pid(connection: socket.socket) -> int:
    """The id of the process at the other end; of a server's, the one that began to listen."""
    return _credentials(connection)[0]


def _credentials(connection: socket.socket) -> tuple[int, int, int]:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return pid, uid, gid
