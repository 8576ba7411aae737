"""How the daemon speaks in the swarm: seals with its identity, opens what others sealed, sends."""

import msgspec

from daemon.rounds.envelopes import Envelopes
from daemon.rounds.lineage.position import Position
from daemon.rounds.mail import Mail
from protocol.codec import encode
from protocol.envelope import Domain, VerifiedMessage, seal_envelope
from protocol.identity import Identity, PeerId
from protocol.peers.agreement_messages import AgreementMessage
from protocol.peers.evaluation import Claim, open_evaluation
from protocol.peers.peer_messages import PeerMessage, Vouch
from protocol.statements.sequence import SequenceCounter
from transport.clock import Clock


class Speaker:
    """This peer's voice in one swarm.

    >>> ann = Identity.generate()
    >>> envelopes, mail = Envelopes(bytes(32), Clock()), None  # Mail is for sending alone.
    >>> speaker = Speaker(ann, envelopes, mail, Clock())
    >>> speaker.open_vouch(speaker.vouch(Position(7, bytes(32)))).signer == ann.peer_id
    True
    """

    def __init__(
        self,
        identity: Identity,
        envelopes: Envelopes,
        mail: Mail,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._envelopes = envelopes
        self._mail = mail
        self._clock = clock
        self._vouch: tuple[Position, bytes] | None = None
        self._sequence = SequenceCounter(now_ms=clock.now_ms())

    def seal(self, domain: Domain, message: msgspec.Struct) -> bytes:
        """``message`` in an envelope to everyone."""
        return seal_envelope(
            self._identity,
            domain,
            encode(message),
            swarm=self._envelopes.swarm_id,
            sequence=self._sequence.take(),
        )

    def seal_agreement(self, message: AgreementMessage) -> bytes:
        """``message`` in an envelope of domain ``agreement``, to everyone."""
        return self.seal(Domain.AGREEMENT, message)

    def vouch(self, position: Position) -> bytes:
        """This peer's signature that it came to ``position``; the same one each time."""
        if self._vouch is None or self._vouch[0] != position:
            said = Vouch(round=position.round, base=position.base)
            self._vouch = (position, self.seal(Domain.STATE, said))
        return self._vouch[1]

    def open_vouch(self, raw: bytes) -> VerifiedMessage:
        """A Vouch of this swarm. Raises :class:`RemoteProtocolError`."""
        return self._envelopes.open(raw, Domain.STATE)

    def open_agreement(self, raw: bytes) -> VerifiedMessage:
        """An agreement message of this swarm. Raises :class:`RemoteProtocolError`."""
        return self._envelopes.open(raw, Domain.AGREEMENT)

    def open_update(self, raw: bytes) -> VerifiedMessage:
        """An update header of this swarm. Raises :class:`RemoteProtocolError`."""
        return self._envelopes.open(raw, Domain.UPDATE)

    def open_evaluation(self, raw: bytes) -> Claim:
        """What somebody says of a state. Raises :class:`RemoteProtocolError`."""
        return open_evaluation(raw, swarm=self._envelopes.swarm_id, now_ms=self._clock.now_ms())

    def send(self, peer: PeerId, message: PeerMessage) -> bool:
        """Queue a message for ``peer``; False when it has no session or its queue is full."""
        return self._mail.send(peer, encode(message))

    def broadcast(
        self, message: PeerMessage, *, but: frozenset[PeerId] = frozenset()
    ) -> frozenset[PeerId]:
        """Queue a message for every live peer ``but`` these; the live peers that have it then."""
        data = encode(message)
        live = self._mail.live_peers()
        return (live & but) | {peer for peer in live - but if self._mail.send(peer, data)}
