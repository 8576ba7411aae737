"""The directory in which a server keeps what makes it the same server after a restart.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as path, open_server_directory(Path(path)) as directory:
...     uri = directory.publish(HostPort("192.0.2.1", 5555))
...     (directory.path / URI_FILE).read_text() == f"{uri}\\n"
True
>>> too_narrow("192.168.1.2")
'the address is private, so that only peers in the same network reach it'
"""

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import ConfigError
from protocol.uri import HostPort, ServerUri
from transport.address import EVERY_ADDRESS, is_local, is_loopback
from transport.atomic_file import write_atomically
from transport.curve import CurveKeys
from transport.key_file import read_or_create_secret

KEY_FILE = "curve.key"
URI_FILE = "uri"
LOCK_FILE = "lock"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerDirectory:
    """A state directory that is this process's own."""

    path: Path
    keys: CurveKeys

    def publish(self, address: HostPort) -> ServerUri:
        """The server's URI at ``address``, which lies in the file ``uri`` from now on.

        Where ``address`` is "any" and what stands for it is of little use to others, the log says
        so: the URI goes into every invite link.
        """
        found = reachable(address)
        reason = too_narrow(found.host) if address.host in EVERY_ADDRESS else ""
        if reason:
            _log.warning(
                "the URI names %s: %s; for others, name the public address with --advertise"
                " HOST:PORT",
                found,
                reason,
            )
        uri = ServerUri(self.keys.public, found)
        try:
            write_atomically(self.path / URI_FILE, f"{uri}\n".encode(), mode=0o644)
        except OSError as error:
            raise ConfigError(f"cannot write {self.path / URI_FILE}: {error.strerror}") from error
        return uri


@contextlib.contextmanager
def open_server_directory(path: Path) -> Iterator[ServerDirectory]:
    """``path``, made if need be, with the server's key; nobody else's while the block lasts.

    Raises :class:`ConfigError` when it cannot be used, or another server runs in it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot use state directory {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another server runs in {path}: stop it, or name another directory"
                " with --state-dir"
            ) from error
        secret = read_or_create_secret(path / KEY_FILE, lambda: CurveKeys.generate().secret)
        yield ServerDirectory(path, CurveKeys.from_secret(secret))
    finally:
        os.close(lock)


def reachable(address: HostPort) -> HostPort:
    """``address`` as others may reach it: instead of "any", the one that packets leave from."""
    match address.host:
        case "0.0.0.0":
            family, anywhere, loopback = socket.AF_INET, "192.0.2.1", "127.0.0.1"
        case "::":
            family, anywhere, loopback = socket.AF_INET6, "2001:db8::1", "::1"
        case _:
            return address
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing: it only chooses a route, to an address set aside for documentation.
            probe.connect((anywhere, 9))
            return HostPort(str(probe.getsockname()[0]), address.port)
        except OSError:
            return HostPort(loopback, address.port)


def too_narrow(host: str) -> str:
    """Why peers elsewhere cannot reach the IP address ``host``; empty: they may."""
    if is_loopback(host):
        return "no route leads out of this machine, so that only its own peers reach it"
    if is_local(host):
        return "the address is private, so that only peers in the same network reach it"
    return ""
