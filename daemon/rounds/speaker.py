"""How the daemon speaks in the swarm: seals with its identity, opens what others sealed, sends."""

from collections import OrderedDict

import msgspec

from daemon.rounds.lineage.position import Position
from daemon.rounds.mail import Mail
from protocol.codec import encode
from protocol.envelope import (
    NEVER_MS,
    Domain,
    VerifiedMessage,
    open_envelope,
    seal_envelope,
)
from protocol.identity import Identity, PeerId
from protocol.peers.agreement_messages import MAX_VOTE_BYTES, AgreementMessage
from protocol.peers.evaluation import Claim, open_evaluation
from protocol.peers.peer_messages import PeerMessage, Vouch
from protocol.statements.sequence import SequenceCounter
from transport.clock import Clock

MAX_KEPT_BYTES = MAX_VOTE_BYTES
"""Only votes, vouches and headers are shown more than once."""
MAX_KEPT_MESSAGES = 4096
"""Opened messages that are kept, about 1 KB each: the votes and vouches of the largest roster."""


class Speaker:
    """This peer's voice in one swarm.

    >>> ann = Identity.generate()
    >>> speaker = Speaker(ann, bytes(32), mail=None, clock=Clock())  # Mail is for sending alone.
    >>> speaker.open_vouch(speaker.vouch(Position(7, bytes(32)))).signer == ann.peer_id
    True
    """

    def __init__(
        self,
        identity: Identity,
        swarm_id: bytes,
        mail: Mail,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._swarm_id = swarm_id
        self._mail = mail
        self._clock = clock
        self._vouch: tuple[Position, bytes] | None = None
        self._sequence = SequenceCounter(now_ms=clock.now_ms())
        self._opened: OrderedDict[tuple[bytes, Domain], VerifiedMessage] = OrderedDict()
        """What was opened lately, the oldest first: certificates and proofs show again what came
        before, and each signature takes a tenth of a millisecond to check."""

    def seal(self, domain: Domain, message: msgspec.Struct) -> bytes:
        """``message`` in an envelope to everyone."""
        return seal_envelope(
            self._identity,
            domain,
            encode(message),
            swarm=self._swarm_id,
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
        return self._open(raw, Domain.STATE)

    def open_agreement(self, raw: bytes) -> VerifiedMessage:
        """An agreement message of this swarm. Raises :class:`RemoteProtocolError`."""
        return self._open(raw, Domain.AGREEMENT)

    def open_update(self, raw: bytes) -> VerifiedMessage:
        """An update header of this swarm. Raises :class:`RemoteProtocolError`."""
        return self._open(raw, Domain.UPDATE)

    def open_evaluation(self, raw: bytes) -> Claim:
        """What somebody says of a state. Raises :class:`RemoteProtocolError`."""
        return open_evaluation(raw, swarm=self._swarm_id, now_ms=self._clock.now_ms())

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

    def _open(self, raw: bytes, domain: Domain) -> VerifiedMessage:
        key = (raw, domain)
        message = self._opened.get(key)
        if message is None:
            now_ms = self._clock.now_ms()
            message = open_envelope(raw, domain, now_ms=now_ms, swarm=self._swarm_id)
            if len(raw) <= MAX_KEPT_BYTES and message.expires_ms == NEVER_MS:
                self._opened[key] = message
                if len(self._opened) > MAX_KEPT_MESSAGES:
                    self._opened.popitem(last=False)
        return message
