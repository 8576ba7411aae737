"""One peer's state directory: its keys, its membership and the lock that keeps others out.

Invariants: the directory belongs to the user who runs the daemon and has mode 0700; one process at
a time holds it; key files are written once and never again (transport/key_file.py).
"""

import fcntl
import logging
import os
import re
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from daemon.host import state_paths
from daemon.host.damaged import put_aside
from ml.state.blob import KEPT_CHECKPOINTS
from protocol.errors import ConfigError
from protocol.identity import Identity
from transport.atomic_file import write_atomically
from transport.curve import CurveKeys
from transport.key_file import read_or_create_secret

_log = logging.getLogger("p2pd")

_LEFT_OVER = re.compile(
    r"\.[a-z.]+\.[0-9a-f]{16}"  # transport/atomic_file.py
    r"|\.\d+-[0-9a-f]{16}\.tmp"  # ml/state/tensor_store.py, of an export
    r"|export-[0-9a-f]{16}\.safetensors"  # daemon/control/api.py
)


class DamagedError(ConfigError):
    """A file is there and does not pass."""


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """How this peer joined its swarm, so that ``p2pd join`` without a link goes on as before.

    Holds the invite link, and with it the token's secret half: the file has mode 0600.
    """

    schema: int = 1
    link: str
    task_file: str = ""
    shard: str = "0/1"
    listen: str = "[::]:0"
    advertise: tuple[str, ...] = ()
    stun: tuple[str, ...] = ()
    turn: str = ""
    map_port: bool = True
    observe: bool = False
    data_dir: str = ""
    name: str = ""
    threads: int = 0
    device: str = "auto"
    kept_checkpoints: int = KEPT_CHECKPOINTS
    event_dir: str = ""
    web: str = ""
    on_round: str = ""
    upload_rate: str = "off"
    download_rate: str = "off"
    hours: str = ""
    pause_on_battery: bool = False
    pause_on_metered: bool = False
    niceness: int = 0
    disk_quota: int = 0
    command: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Membership({self.name!r})"  # No link, no password.


def read_identity(state_dir: Path) -> Identity:
    """The identity that is stored in ``state_dir``. Raises :class:`ConfigError`, also for none."""
    path = state_dir / state_paths.IDENTITY_KEY
    if not os.path.lexists(path):
        raise ConfigError(f"there is no peer in {state_dir} yet; 'p2pd join LINK' makes one")
    return Identity(read_or_create_secret(path, lambda: Identity.generate().secret))


def read_membership(state_dir: Path) -> Membership | None:
    """How the peer of ``state_dir`` joined; None if it never did. Raises :class:`ConfigError`."""
    path = state_dir / state_paths.MEMBERSHIP_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Membership)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedError(
            f"{path} is damaged ({error}): join again with the invite link"
        ) from error


def read_statement(state_dir: Path) -> bytes | None:
    """The newest signed swarm statement that is stored there, unverified; None without one.

    Raises :class:`ConfigError`.
    """
    path = state_dir / state_paths.STATEMENT_FILE
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


class StateDir:
    """A peer's directory, made if need be, and locked while the ``with`` block runs.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root, StateDir(Path(root, "ann")) as state_dir:
    ...     state_dir.write_membership(Membership(link="p2pd:…", shard="0/3"))
    ...     state_dir.read_membership().shard
    ...     state_dir.identity().peer_id == state_dir.identity().peer_id
    '0/3'
    True
    """

    def __init__(self, path: Path) -> None:
        """``path`` is absolute; entering makes and locks it, and nothing happens before."""
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Raises :class:`ConfigError` when the directory cannot be used, or is in use."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owner_and_mode()
            self._lock = self._take_lock()
            self._delete_left_overs()
        except OSError as error:
            raise ConfigError(
                f"cannot use state directory {self.path}: {error.strerror};"
                " choose another with --state-dir"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _check_owner_and_mode(self) -> None:
        status = self.path.stat()
        if status.st_uid != os.geteuid():
            raise ConfigError(
                f"state directory {self.path} belongs to user {status.st_uid}, not to"
                f" {os.geteuid()} who runs this: choose another with --state-dir"
            )
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise ConfigError(
                f"state directory {self.path} has mode {mode:04o}, others may read or change it:"
                f" chmod 700 {self.path}"
            )

    def _take_lock(self) -> int:
        lock = os.open(
            self.path / state_paths.LOCK_FILE,
            os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ConfigError(
                f"another p2pd is running with state directory {self.path}: stop it with"
                f" 'p2pd stop --state-dir {self.path}', or give this one a --state-dir of its own"
            ) from None
        return lock

    def _delete_left_overs(self) -> None:
        """Delete what a killed process left half-written: nobody writes before the lock is held."""
        for place in (self.path, self.path / state_paths.EXPORTS):
            for path in place.glob("*"):
                if _LEFT_OVER.fullmatch(path.name):
                    path.unlink()

    @property
    def control_socket(self) -> Path:
        """The socket on which the control API listens."""
        return self.path / state_paths.CONTROL_SOCKET

    def identity(self) -> Identity:
        """The peer's identity; made at the first call ever. Raises :class:`ConfigError`."""
        return self.keep_identity(Identity.generate())

    def keep_identity(self, new: Identity) -> Identity:
        """The identity that is stored here; ``new`` is stored if there is none yet."""
        path = self.path / state_paths.IDENTITY_KEY
        return Identity(read_or_create_secret(path, lambda: new.secret))

    def curve_keys(self) -> CurveKeys:
        """The peer's CURVE keys; made at the first call ever. Raises :class:`ConfigError`."""
        path = self.path / state_paths.CURVE_KEY
        return CurveKeys.from_secret(
            read_or_create_secret(path, lambda: CurveKeys.generate().secret)
        )

    def read_membership(self) -> Membership | None:
        """How this peer joined; None if it never did, or if what is stored does not pass: then it
        is put aside. Raises :class:`ConfigError` where it cannot be read at all."""
        try:
            return read_membership(self.path)
        except DamagedError as error:
            self.put_membership_aside(error)
            return None

    def put_membership_aside(self, reason: Exception) -> None:
        """The stored membership does not pass: keep it under another name."""
        put_aside(
            self.path / state_paths.MEMBERSHIP_FILE,
            reason,
            "join again with the invite link, and say again what you said then",
        )

    def write_membership(self, membership: Membership) -> None:
        """Remember how this peer joined. Raises :class:`ConfigError`."""
        self._write(state_paths.MEMBERSHIP_FILE, msgspec.json.encode(membership))

    def read_statement(self) -> bytes | None:
        """The newest signed swarm statement that was stored, unverified; None without one."""
        return read_statement(self.path)

    def write_statement(self, raw: bytes) -> None:
        """Keep a signed swarm statement. Raises :class:`ConfigError`."""
        self._write(state_paths.STATEMENT_FILE, raw)

    def write_model(self, described: bytes) -> None:
        """Remember what the model is, for exports while no peer runs. A disk that is full costs
        these, and no training."""
        try:
            self._write(state_paths.MODEL_FILE, described)
        except ConfigError as error:
            _log.warning("what the model is, is not kept: %s", error)

    def _write(self, name: str, content: bytes) -> None:
        try:
            write_atomically(self.path / name, content)
        except OSError as error:
            raise ConfigError(f"cannot write {self.path / name}: {error.strerror}") from error
