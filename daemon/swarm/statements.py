"""Keeps this peer and its neighbours at the newest swarm statement that any of them has."""

from typing import Protocol

from daemon.swarm.membership import SwarmPlace
from protocol.codec import encode
from protocol.identity import PeerId
from protocol.peers.peer_messages import StatementOffer
from protocol.statements.swarm import Swarm


class SwarmNetwork(Protocol):
    """What this needs of the network (:class:`daemon.net.network.PeerNetwork`)."""

    def send(self, peer_id: PeerId, message: bytes) -> bool:
        """Queue a message. False: no session, or no room."""

    def live_peers(self) -> frozenset[PeerId]:
        """Those with a session that were heard of lately."""

    def replace_statement(self, swarm: Swarm) -> None:
        """Go by a newer statement."""


class Statements:
    """One peer's: tells each new neighbour of the statement, and passes a newer one on.

    Example (daemon/rounds/inbox.py)::

        self._statements.take(peer, message.statement)
        self._statements.greet(peer)
    """

    def __init__(self, place: SwarmPlace, network: SwarmNetwork) -> None:
        self._place = place
        self._network = network

    @property
    def current(self) -> bytes:
        """The signed statement that this peer goes by."""
        return self._place.swarm.raw

    def greet(self, peer: PeerId) -> None:
        """A session with ``peer`` is open: say by which statement this peer goes."""
        self._network.send(peer, encode(StatementOffer(statement=self.current)))

    def take(self, peer: PeerId | None, raw: bytes) -> None:
        """``peer`` (None: a rendezvous) has a statement, not verified yet.

        The highest version takes effect and is passed on; a bad one is counted against ``peer``.
        """
        if not self._place.take_statement(peer, raw):
            return
        self._network.replace_statement(self._place.swarm)
        for other in self._network.live_peers():
            self._network.send(other, encode(StatementOffer(statement=raw)))
