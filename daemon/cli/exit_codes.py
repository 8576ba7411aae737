"""What ``p2pd`` exits with, so that scripts can tell what happened."""

import enum

from daemon.control.client import NotPermittedError, NotRunningError
from protocol.errors import ConfigError, P2PDError, TransportError


class ExitCode(enum.IntEnum):
    """See ``p2pd --help``."""

    HEALTHY = 0
    DEGRADED = 1
    """Or failed in a way that no other code names."""
    USAGE = 2
    NOT_RUNNING = 3
    NOT_PERMITTED = 4
    UNREACHABLE = 5
    """A peer that is unknown, or a peer or server that does not answer."""
    BAD_CONFIG = 78
    """``EX_CONFIG`` of sysexits.h; the systemd units do not restart after it."""
    STOP_OVERDUE = 124
    """A peer that was told to stop did not, and was ended by force; nor is it restarted then."""
    INTERRUPTED = 130
    """128 + SIGINT, as shells have it."""


class UsageError(P2PDError):
    """The command line says too little, or contradicts itself."""


class UnknownPeerError(P2PDError):
    """No peer of that name or id."""


_BY_ERROR: tuple[tuple[type[P2PDError], ExitCode], ...] = (
    (UsageError, ExitCode.USAGE),
    (NotRunningError, ExitCode.NOT_RUNNING),
    (NotPermittedError, ExitCode.NOT_PERMITTED),
    (UnknownPeerError, ExitCode.UNREACHABLE),
    (TransportError, ExitCode.UNREACHABLE),
    (ConfigError, ExitCode.BAD_CONFIG),
)


def exit_code_of(error: P2PDError) -> ExitCode:
    """What a command that failed with ``error`` exits with.

    >>> exit_code_of(ConfigError("the link names no rendezvous"))
    <ExitCode.BAD_CONFIG: 78>
    >>> exit_code_of(P2PDError("something else"))
    <ExitCode.DEGRADED: 1>
    """
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.DEGRADED)
