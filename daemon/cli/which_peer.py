"""Finds out which of the peers on this machine a command is about."""

import os
from pathlib import Path

from daemon.cli.exit_codes import UsageError
from daemon.control.client import NotPermittedError, NotRunningError, Presence, presence
from daemon.host.state_paths import IDENTITY_KEY, known_directories
from protocol.errors import ConfigError


def find_running(state_dir: Path | None) -> Path:
    """``state_dir`` if given, else the state directory of the one peer that runs here.

    Raises :class:`NotRunningError`, :class:`NotPermittedError`, or :class:`UsageError` that names
    those to choose from.

    Example (daemon/cli/watch/logs.py)::

        client = ControlClient(find_running(options.state_dir))
    """
    if state_dir is not None:
        return state_dir
    found = {path: presence(path) for path in known_directories(os.environ)}
    running = [path for path, there in found.items() if there is Presence.RUNNING]
    denied = [path for path, there in found.items() if there is Presence.DENIED]
    if len(running) == 1:
        return running[0]
    if running:
        choices = ", ".join(map(str, running))
        raise UsageError(f"{len(running)} peers run here; say which with --state-dir: {choices}")
    if denied:
        raise NotPermittedError(
            f"this user may not look into {denied[0]}; if that is the peer you mean, use its"
            " owner's account, or root"
        )
    raise NotRunningError("no p2pd is running here; start one with 'p2pd join LINK'")


def only_identity() -> Path:
    """The state directory of the one peer here, whether it runs or not.

    Raises :class:`ConfigError` for none, and :class:`UsageError` that names those to choose from.
    """
    found = [path for path in known_directories(os.environ) if os.path.lexists(path / IDENTITY_KEY)]
    if not found:
        raise ConfigError("there is no peer here yet; 'p2pd join LINK' makes one")
    if len(found) > 1:
        choices = ", ".join(map(str, found))
        raise UsageError(
            f"there are {len(found)} peers here; say which with --state-dir: {choices}"
        )
    return found[0]
