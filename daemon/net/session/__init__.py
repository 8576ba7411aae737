"""One session per pair of peers, above any number of paths. Sans-IO."""

from daemon.net.session.events import (
    ActivePathChanged,
    BulkRoom,
    Event,
    MessageReceived,
    PathFailed,
    PeerDown,
    PeerUp,
    SessionExpired,
    SessionReset,
)
from daemon.net.session.session import OutgoingFrame, Session, SessionState, StaleEpochError
from daemon.net.session.streams import SessionLimits

__all__ = [
    "ActivePathChanged",
    "BulkRoom",
    "Event",
    "MessageReceived",
    "OutgoingFrame",
    "PathFailed",
    "PeerDown",
    "PeerUp",
    "Session",
    "SessionExpired",
    "SessionLimits",
    "SessionReset",
    "SessionState",
    "StaleEpochError",
]
