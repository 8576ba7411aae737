"""What a session tells its owner."""

from dataclasses import dataclass

from protocol.peers.session_frames import Stream


@dataclass(frozen=True, slots=True)
class PeerUp:
    """The peer is heard: for the first time, or again after :class:`PeerDown`."""


@dataclass(frozen=True, slots=True)
class PeerDown:
    """The peer is not live any more. Its queue is kept for a while."""

    reason: str


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A whole message. Taking this event out gives its bytes back as credit."""

    stream: Stream
    message: bytes


@dataclass(frozen=True, slots=True)
class BulkRoom:
    """There is room for a largest bulk message again, after there was none."""


@dataclass(frozen=True, slots=True)
class ActivePathChanged:
    """Frames go over this path from now on; None: there is no usable one."""

    path_id: int | None


@dataclass(frozen=True, slots=True)
class PathFailed:
    """The path is detached already; its owner closes it."""

    path_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class SessionReset:
    """The remote process restarted: a new session begins, and the queue of the old one is gone."""


@dataclass(frozen=True, slots=True)
class SessionExpired:
    """There was no path for too long: everything that was kept for a resume is gone."""


Event = (
    PeerUp
    | PeerDown
    | MessageReceived
    | BulkRoom
    | ActivePathChanged
    | PathFailed
    | SessionReset
    | SessionExpired
)
