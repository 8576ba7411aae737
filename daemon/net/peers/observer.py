"""Who is told what happens between this peer and another one."""

from typing import Protocol

from protocol.identity import PeerId
from protocol.peers.session_frames import Stream


class PeerObserver(Protocol):
    """Who is told what happens on a link."""

    def message_received(self, peer_id: PeerId, stream: Stream, message: bytes) -> None:
        """A whole message came."""

    def peer_up(self, peer_id: PeerId) -> None:
        """The peer is live."""

    def peer_down(self, peer_id: PeerId, reason: str) -> None:
        """It is not any more."""

    def bulk_room_found(self, peer_id: PeerId) -> None:
        """There is room for a largest bulk message again."""
