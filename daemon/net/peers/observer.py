"""Who is told what happens between this peer and others.

>>> class Printer(NoReader):
...     def receive(self, peer_id, message): print(peer_id, len(message))
>>> Printer().receive(PeerId("ann"), b"good morning")  # The network calls it.
ann 12
"""

from typing import Protocol

from protocol.identity import PeerId
from protocol.peers.session_frames import Stream


class MessageReader(Protocol):
    """Reads what other peers send. Called from the event loop; returns at once, and may call
    everything of the network."""

    def receive(self, peer_id: PeerId, message: bytes) -> None:
        """A control message came."""

    def receive_bulk(self, peer_id: PeerId, message: bytes) -> None:
        """A bulk message came."""

    def bulk_room_found(self, peer_id: PeerId) -> None:
        """There is room for a largest bulk message again."""

    def peer_up(self, peer_id: PeerId) -> None:
        """The peer is live."""

    def peer_down(self, peer_id: PeerId, reason: str) -> None:
        """It is not any more."""


class NoReader:
    """A network's reader before it has one."""

    def receive(self, peer_id: PeerId, message: bytes) -> None:
        """See :class:`MessageReader`."""

    def receive_bulk(self, peer_id: PeerId, message: bytes) -> None:
        """See :class:`MessageReader`."""

    def bulk_room_found(self, peer_id: PeerId) -> None:
        """See :class:`MessageReader`."""

    def peer_up(self, peer_id: PeerId) -> None:
        """See :class:`MessageReader`."""

    def peer_down(self, peer_id: PeerId, reason: str) -> None:
        """See :class:`MessageReader`."""


class PeerObserver(Protocol):
    """Is told what happens on a link."""

    def message_received(self, peer_id: PeerId, stream: Stream, message: bytes) -> None:
        """A whole message came."""

    def peer_up(self, peer_id: PeerId) -> None:
        """The peer is live."""

    def peer_down(self, peer_id: PeerId, reason: str) -> None:
        """It is not any more."""

    def bulk_room_found(self, peer_id: PeerId) -> None:
        """There is room for a largest bulk message again."""
