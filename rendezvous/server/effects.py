"""What the registry wants done: the only way in which it acts on the world."""

from dataclasses import dataclass

from rendezvous.server.directory import Change


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender of a frame, as the transport vouches for it."""

    route: bytes
    curve_key: bytes
    ip: str


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``frame``; if it cannot be queued, it is dropped."""

    route: bytes
    frame: bytes


@dataclass(frozen=True, slots=True)
class Forward:
    """Send ``frame``, and then ``done`` to ``sender``, or ``failed`` if it could not be queued."""

    route: bytes
    frame: bytes
    sender: bytes
    done: bytes
    failed: bytes


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep ``change``."""

    change: Change


@dataclass(frozen=True, slots=True)
class SendWhenKept:
    """Send ``frame`` once all changes up to here are kept; ``failed`` if they cannot be."""

    route: bytes
    frame: bytes
    failed: bytes


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End the connection."""

    route: bytes
    reason: str


Effect = Send | Forward | Keep | SendWhenKept | Disconnect
