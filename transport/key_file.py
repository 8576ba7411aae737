"""Key files: 32 secret bytes in a file of mode 0600 that is written once and never again.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as directory:
...     path = Path(directory) / "identity.key"
...     secret = read_or_create_secret(path, lambda: bytes(SECRET_BYTES))
...     read_or_create_secret(path, lambda: b"is not asked for now") == secret
...     path.chmod(0o644)
...     read_or_create_secret(path, lambda: b"nor now")
Traceback (most recent call last):
protocol.errors.ConfigError: key file ... has mode 0644, others may have read it: chmod 600 ...
"""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from protocol.errors import ConfigError
from transport.atomic_file import write_atomically

SECRET_BYTES = 32
_OWNER_ONLY = 0o600


def read_or_create_secret(path: Path, make: Callable[[], bytes]) -> bytes:
    """The secret in ``path``; if there is no such file, ``make()``'s, written there first.

    Raises :class:`ConfigError`, with what to do about it, for a file that others may read, that
    belongs to another user, is no regular file (a symbolic link could point anywhere), or does not
    hold exactly 32 bytes; and when it can be neither read nor written.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _explain(path, error) from error
    try:
        _create(path, make())
        return _read(path)
    except OSError as error:
        raise ConfigError(f"cannot write key file {path}: {error.strerror}") from error


def _read(path: Path) -> bytes:
    # O_NONBLOCK: opening a named pipe put in the file's place must not hang.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"key file {path} is no regular file: move it away")
        if status.st_uid != os.geteuid():
            raise ConfigError(
                f"key file {path} belongs to user {status.st_uid}, not to {os.geteuid()} who runs"
                f" this: chown {os.geteuid()} {path}"
            )
        mode = stat.S_IMODE(status.st_mode)
        if mode & ~_OWNER_ONLY:
            raise ConfigError(
                f"key file {path} has mode {mode:04o}, others may have read it:"
                f" chmod 600 {path}, or delete it to get a new key"
            )
        secret = file.read(SECRET_BYTES + 1)
    if len(secret) != SECRET_BYTES:
        raise ConfigError(
            f"key file {path} does not hold {SECRET_BYTES} bytes: restore it from a copy,"
            " or delete it to get a new key"
        )
    return secret


def _create(path: Path, secret: bytes) -> None:
    """Write whole or not at all; a file that someone else put there meanwhile stays."""
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"secret of {len(secret)} bytes, {SECRET_BYTES} expected")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, secret, mode=_OWNER_ONLY, replace=False)


def _explain(path: Path, error: OSError) -> ConfigError:
    if error.errno == errno.ELOOP:
        return ConfigError(f"key file {path} is a symbolic link: put the file itself there")
    return ConfigError(f"cannot read key file {path}: {error.strerror}")
