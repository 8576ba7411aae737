"""Passes what a peer sends on to the part that it concerns."""

from collections.abc import Callable

from daemon.net.refusals import Refusals
from daemon.rounds.blobs.service import BlobService
from daemon.rounds.training import Training
from daemon.rounds.updates import Exchange
from protocol.codec import decode
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.peer_messages import (
    ChunkMissing,
    ChunkRequest,
    PeerMessage,
    StatementOffer,
    UpdateOffer,
    UpdateRequest,
)


class Switchboard:
    """The receivers of one peer's messages. What does not decode is refused and counted."""

    def __init__(
        self,
        *,
        training: Training,
        exchange: Exchange,
        blobs: BlobService,
        take_statement: Callable[[PeerId, bytes], None],
        refusals: Refusals,
    ) -> None:
        self._training = training
        self._exchange = exchange
        self._blobs = blobs
        self._take_statement = take_statement
        self._refusals = refusals

    def receive(self, peer: PeerId, data: bytes) -> None:
        """A control message of ``peer``'s."""
        try:
            message = decode(data, PeerMessage)
        except RemoteProtocolError as error:
            self._refusals.add(peer, "malformed", error)
            return
        match message:
            case UpdateOffer():
                self._exchange.receive_offer(peer, message)
            case UpdateRequest():
                self._exchange.receive_request(peer, message)
            case ChunkRequest():
                self._blobs.receive_request(peer, message)
            case ChunkMissing():
                self._blobs.receive_missing(peer, message)
            case StatementOffer(statement):
                self._take_statement(peer, statement)
            case _:
                self._training.receive(peer, message)

    def peer_down(self, peer: PeerId) -> None:
        """``peer``'s session ended."""
        self._training.forget(peer)
        self._blobs.drop_peer(peer)
