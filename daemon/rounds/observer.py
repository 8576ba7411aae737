"""What a peer that only observes does with messages of others: it goes by newer statements."""

from collections.abc import Callable

from daemon.net.refusals import Refusals
from protocol.codec import decode
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.peer_messages import PeerMessage, StatementOffer


class Observer:
    """Stands where :class:`daemon.rounds.inbox.Switchboard` stands in a peer that trains."""

    def __init__(
        self, *, take_statement: Callable[[PeerId, bytes], None], refusals: Refusals
    ) -> None:
        self._take_statement = take_statement
        self._refusals = refusals

    def receive(self, peer: PeerId, data: bytes) -> None:
        """A control message of ``peer``'s."""
        try:
            message = decode(data, PeerMessage)
        except RemoteProtocolError as error:
            self._refusals.add(peer, "malformed", error)
            return
        if isinstance(message, StatementOffer):
            self._take_statement(peer, message.statement)
