"""The places where peers keep their state. Names only: nothing is opened here.

Light on purpose: ``p2pd status`` needs it and must start at once.
"""

import base64
import os
from collections.abc import Mapping
from pathlib import Path

from protocol.errors import ConfigError

CONTROL_SOCKET = "control.sock"
LOCK_FILE = "lock"
IDENTITY_KEY = "identity.key"
CURVE_KEY = "curve.key"
MEMBERSHIP_FILE = "membership.json"
STATEMENT_FILE = "swarm.statement"
ADMITTED_FILE = "admitted"
SEQUENCE_FILE = "sequence"
ROUNDS_FILE = "rounds.jsonl"
MODEL_FILE = "model.json"
"""What the trainer said of its model (:class:`p2pd.messages.Opened`)."""
EXPORTS = "exports"
"""The directory where exports lie while they are sent."""
PAGE_FILE = "page"
"""A server's: the address of its page, with the token, while it runs."""

SYSTEM_ROOT = Path("/var/lib/p2pd")
"""The place of peers that systemd units start."""

_NAME_LENGTH = 16


def user_root(environ: Mapping[str, str]) -> Path:
    """``$XDG_STATE_HOME/p2pd``, by default ``~/.local/state/p2pd``.

    Raises :class:`ConfigError` for a user who has no home.
    """
    state_home = environ.get("XDG_STATE_HOME", "")
    # The XDG base directory specification: a relative path is to be ignored.
    if not os.path.isabs(state_home):
        home = environ.get("HOME") or os.path.expanduser("~")
        if not os.path.isabs(home):
            raise ConfigError(
                "this user has no home directory to keep a peer in: set HOME or XDG_STATE_HOME, or"
                " name a directory with --state-dir"
            )
        state_home = os.path.join(home, ".local", "state")
    return Path(state_home) / "p2pd"


def service_directory(environ: Mapping[str, str]) -> Path | None:
    """The directory that systemd made for this service, if it is one."""
    # Several directories are joined by colons; p2pd's units have one each.
    first = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(first) if first else None


def swarm_directory(environ: Mapping[str, str], swarm_id: bytes) -> Path:
    """The default place of a peer's state in that swarm.

    >>> swarm_directory({"XDG_STATE_HOME": "/var/state"}, bytes(32)).parts[:3]
    ('/', 'var', 'state')
    """
    service = service_directory(environ)
    if service is not None:
        return service
    name = base64.b32encode(swarm_id).decode("ascii").lower()[:_NAME_LENGTH]
    return user_root(environ) / name


def server_directory(environ: Mapping[str, str], role: str) -> Path:
    """Where a server (``rendezvous``, ``relay``, ``serve``) keeps its state unless told
    otherwise."""
    return service_directory(environ) or user_root(environ) / role


def known_directories(environ: Mapping[str, str]) -> list[Path]:
    """Every state directory in the usual places, the user's own and the system's."""
    found: list[Path] = []
    for root in (user_root(environ), SYSTEM_ROOT):
        try:
            entries = sorted(root.iterdir())
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # nobody keeps peers there, or they are none of this user's
        # A service's directory may be one that this user cannot even look at, but is no file.
        found.extend(path for path in entries if not os.path.isfile(path))
    return found
