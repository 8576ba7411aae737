"""The relay's view of its peers and of the links between them. Sans-IO.

What flows one way over a link is a :class:`Direction`. Its numbers count bytes since the link was
opened, in credits (:func:`protocol.servers.relay_messages.data_cost`), and keep this order::

    consumed  ≤  sent  ≤  passed  ≤  granted  =  consumed + window

The receiver grants, the relay passes that on to the sender as its rates and its memory allow, the
sender sends. What was sent and is not yet consumed lies with the relay, in the worst case.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from protocol.servers.relay_messages import FromRelay
from relay.server.account import Account


class LinkState(enum.Enum):
    """ASKED → OPEN → CLOSING, or at once from ASKED to CLOSING."""

    ASKED = "asked"
    """Waiting for the answer of the peer that was called."""
    OPEN = "open"
    CLOSING = "closing"
    """The link is over, but an end has yet to confirm that it has taken what was on the way to
    it."""


@dataclass(frozen=True, slots=True)
class ConsentRule:
    """The peers that a peer talks to in one swarm."""

    keys: frozenset[bytes]
    ask: bool


ASK_ALWAYS = ConsentRule(frozenset(), ask=True)


@dataclass(slots=True, eq=False)
class ConnectedPeer:
    """A peer that said hello and has not gone."""

    curve_key: bytes
    route: bytes
    network: str
    """The part of its address by which peers are counted."""
    window: int
    account: Account
    heard_at: float
    links: dict[int, "RelayedLink"] = field(default_factory=dict)
    identities: dict[bytes, bytes] = field(default_factory=dict)
    """Its identity key by swarm, from the signed records that it showed."""
    consents: dict[bytes, ConsentRule] = field(default_factory=dict)
    unread: int = 0
    """How much lies in the relay for it, over all its links."""

    def agrees_to(self, other: "ConnectedPeer", swarm: bytes) -> bool | None:
        """Whether this peer talks to ``other``; None: it wants to be asked."""
        consent = self.consents.get(swarm, ASK_ALWAYS)
        if other.curve_key in consent.keys:
            return True
        return None if consent.ask else False


@dataclass(slots=True, eq=False)
class Direction:
    """One way of a link."""

    link: "RelayedLink"
    sender: ConnectedPeer
    receiver: ConnectedPeer
    window: int
    progress_at: float
    """When the receiver last consumed, or had nothing to consume."""
    granted: int = field(init=False)
    passed: int = 0
    sent: int = 0
    waits: bool = False
    """A grant waits for the relay's rates or memory."""

    def __post_init__(self) -> None:
        self.granted = self.window

    @property
    def unread(self) -> int:
        """Sent and not consumed."""
        return self.sent - (self.granted - self.window)


@dataclass(slots=True, eq=False)
class RelayedLink:
    """A link between two peers, or the wish for one."""

    number: int
    swarm: bytes
    opener: ConnectedPeer
    called: ConnectedPeer
    request: int
    """The opener's number for its wish."""
    since: float
    state: LinkState = LinkState.ASKED
    active_at: float = field(init=False)
    carried_bytes: int = 0
    directions: dict[bytes, Direction] = field(default_factory=dict)
    """The two directions by the sender's CURVE key."""

    def __post_init__(self) -> None:
        self.active_at = self.since

    def open(self, now: float) -> None:
        """Both ends agree."""
        self.state = LinkState.OPEN
        self.active_at = now
        for sender, receiver in ((self.opener, self.called), (self.called, self.opener)):
            self.directions[sender.curve_key] = Direction(
                self, sender, receiver, receiver.window, now
            )

    def other(self, peer: ConnectedPeer) -> ConnectedPeer:
        """The other end."""
        return self.called if peer is self.opener else self.opener

    def towards(self, peer: ConnectedPeer) -> Direction | None:
        """The direction in which ``peer`` receives; None before the link is open."""
        return self.directions.get(self.other(peer).curve_key)

    def ends(self) -> Iterator[ConnectedPeer]:
        """The ends that still have the link."""
        for peer in (self.opener, self.called):
            if self.number in peer.links:
                yield peer


class Outgoing(Protocol):
    """What goes to peers."""

    def send(self, peer: ConnectedPeer, message: FromRelay) -> None:
        """A message for ``peer``; one that takes none is let go later."""

    def send_credit(self, direction: Direction) -> None:
        """The sender of this direction may send up to ``passed`` from now on."""
