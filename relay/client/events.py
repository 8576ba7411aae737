"""What a connection to a relay tells its owner."""

from dataclasses import dataclass

from protocol.errors import P2PDError, TransportError
from protocol.identity import PeerId
from relay.client.link import RelayLink


class LinkRefusedError(TransportError):
    """The relay does not open the link.

    >>> raise LinkRefusedError("busy", "too many links", 5.0)
    Traceback (most recent call last):
    relay.client.events.LinkRefusedError: busy: too many links
    """

    def __init__(self, code: str, text: str, retry_after_s: float) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Ready:
    """The relay has taken this peer in."""

    window_bytes: int
    observed_address: str


@dataclass(frozen=True, slots=True)
class Asked:
    """Another peer calls; to be answered with :meth:`ClientConnection.answer`."""

    link: int
    swarm: bytes
    curve_key: bytes


@dataclass(frozen=True, slots=True)
class LinkOpened:
    """A link is open and its peer has proven who it is."""

    request: int | None
    """The number from :meth:`ClientConnection.open`; None: the other peer opened it."""
    link: RelayLink


@dataclass(frozen=True, slots=True)
class LinkFailed:
    """A link did not come about."""

    request: int | None
    peer_id: PeerId
    error: P2PDError


@dataclass(frozen=True, slots=True)
class Ended:
    """The connection is of no more use."""

    code: str
    text: str
    retry_after_s: float


Event = Ready | Asked | LinkOpened | LinkFailed | Ended
