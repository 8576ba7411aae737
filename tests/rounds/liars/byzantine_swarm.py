"""A member of a simulated swarm that lies: it can sign anything with its own key, and knows all
that it is told."""

from collections.abc import Callable

import msgspec

from protocol.codec import decode, encode
from protocol.envelope import Domain, VerifiedMessage
from protocol.identity import PeerId
from protocol.peers.agreement_messages import AgreementMessage
from protocol.peers.peer_messages import Agreement, PeerMessage
from tests.rounds.simulated_swarm import SimulatedPeer


def open_agreement(
    peer: SimulatedPeer, envelope: bytes
) -> tuple[VerifiedMessage, AgreementMessage]:
    """What an agreement message says."""
    message = peer.speaker.open_agreement(envelope)
    content: AgreementMessage = decode(message.payload, AgreementMessage)
    return message, content


def tell(liar: SimulatedPeer, message: PeerMessage, *to: PeerId) -> None:
    """Send a message, as it is, to some peers; by default to all."""
    rewrite, liar.rewrite = liar.rewrite, lambda data, bulk: data
    for peer in to or tuple(liar.swarm.connected(liar.id)):
        liar.swarm.send(liar.id, peer, encode(message), bulk=False)
    liar.rewrite = rewrite


def sealed(liar: SimulatedPeer, message: msgspec.Struct) -> Agreement:
    """A signed agreement message, whatever it says."""
    return Agreement(envelope=liar.speaker.seal(Domain.AGREEMENT, message))


def change_agreement(
    liar: SimulatedPeer, change: Callable[[AgreementMessage], AgreementMessage | None]
) -> None:
    """From now on ``liar`` says what ``change`` makes of its agreement messages; None: as they
    are."""

    def rewrite(data: bytes, bulk: bool) -> bytes:
        message = None if bulk else decode(data, PeerMessage)
        if not isinstance(message, Agreement):
            return data
        signed, content = open_agreement(liar, message.envelope)
        changed = change(content) if signed.signer == liar.id else None
        return data if changed is None else encode(sealed(liar, changed))

    liar.rewrite = rewrite
