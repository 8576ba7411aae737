"""The states of a session, and what takes it from one to the next.

The table is what the code goes by; the drawing in docs/sessions.md is made from it, and a
test compares the two.
"""

import enum


class SessionState(enum.Enum):
    """The state of a session."""

    NEW = "new"
    """No path so far; the remote side's epoch is not known."""
    OPEN = "open"
    """Frames go over the active path."""
    WAITING = "waiting"
    """No path is usable; everything is kept for a resume."""
    CLOSED = "closed"
    """Nothing is kept any more; the owner begins another session."""


class Cause(enum.Enum):
    """What takes a session from one state to another."""

    PATH_CHOSEN = "a path is usable, and the best one"
    NO_PATH = "no path is usable"
    REMOTE_RESTARTED = "a hello of another epoch: the remote process restarted"
    KEPT_LONG_ENOUGH = "no path for 120 s"


_S, _C = SessionState, Cause

TRANSITIONS: dict[tuple[SessionState, Cause], SessionState] = {
    (_S.NEW, _C.PATH_CHOSEN): _S.OPEN,
    (_S.OPEN, _C.PATH_CHOSEN): _S.OPEN,
    (_S.OPEN, _C.NO_PATH): _S.WAITING,
    (_S.WAITING, _C.PATH_CHOSEN): _S.OPEN,
    (_S.OPEN, _C.REMOTE_RESTARTED): _S.NEW,
    (_S.WAITING, _C.REMOTE_RESTARTED): _S.NEW,
    (_S.WAITING, _C.KEPT_LONG_ENOUGH): _S.CLOSED,
}
"""No other transition happens."""
