"""What rounds need of the network: messages out, and who is there."""

from typing import Protocol

from daemon.net.view import View
from protocol.identity import PeerId


class Mail(Protocol):
    """The way to the other peers of one swarm (:class:`daemon.net.network.PeerNetwork`).

    Nothing here waits: a message that cannot be queued now is refused, and the sender decides what
    to do.

    Example (daemon/rounds/speaker.py)::

        live = self._mail.live_peers()
        return (live & but) | {peer for peer in live - but if self._mail.send(peer, data)}
    """

    def send(self, peer_id: PeerId, message: bytes) -> bool:
        """Queue a control message, which goes before all bulk. False: no session, or no room."""

    def send_bulk(self, peer_id: PeerId, message: bytes) -> bool:
        """Queue a bulk message. False: no session, or no room for it."""

    def bulk_room(self, peer_id: PeerId) -> int:
        """How many bytes of bulk may be queued now."""

    def live_peers(self) -> frozenset[PeerId]:
        """Those with a session that were heard of lately."""

    @property
    def view(self) -> View:
        """With whom a session is kept at all."""
