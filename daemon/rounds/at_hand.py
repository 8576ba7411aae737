"""The round, or the gathering before one, that this peer is in now, and the messages for it."""

from collections import deque

from daemon.rounds.gathering import Gathering
from daemon.rounds.kinds.agreed_round import AgreedRound
from daemon.rounds.kinds.gossip_round import GossipRound
from daemon.rounds.parts import Parts
from protocol.agreement_messages import AgreementMessage, Certificate
from protocol.codec import decode
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.peer_messages import CertificateReply, CertificateRequest

MAX_PENDING = 4096
"""Messages of rounds to come; the oldest go first."""


class AtHand:
    """Takes each agreement message to the round or gathering that it belongs to.

    One for a later round waits until that begins; one for an earlier round is answered with how
    that round ended. At most one of :attr:`round` and :attr:`gathering` is there.
    """

    def __init__(self, parts: Parts) -> None:
        self.round: AgreedRound | GossipRound | None = None
        self.gathering: Gathering | None = None
        self._parts = parts
        self._pending: deque[tuple[PeerId, bytes]] = deque(maxlen=MAX_PENDING)

    def begin_round(self, round_: AgreedRound | GossipRound) -> None:
        """``round_`` begins; what came for it before goes to it now."""
        self.round, self.gathering = round_, None
        pending = list(self._pending)
        self._pending.clear()
        for peer, envelope in pending:
            self.receive(peer, envelope)

    def begin_gathering(self, gathering: Gathering) -> None:
        """``gathering`` begins."""
        self.round, self.gathering = None, gathering

    def end(self) -> None:
        """Whatever was at hand has ended."""
        self.round = self.gathering = None

    def receive(self, peer: PeerId, envelope: bytes) -> None:
        """``peer`` sent a signed agreement message, not verified yet."""
        parts = self._parts
        try:
            message = parts.speaker.open_agreement(envelope)
            content = decode(message.payload, AgreementMessage)
            position = parts.lineage.position
            here = (content.round, content.base)
            if self.round is not None and here == (self.round.number, self.round.base.base):
                if not self.round.decided:
                    self.round.receive(message)
            elif self.gathering is not None and here == (position.round, position.base):
                self.gathering.receive(message, parts.clock.monotonic())
                parts.changes.notify()
            elif content.round > position.round:
                self._pending.append((peer, envelope))
            else:
                self._answer(message.signer, content.round, content.base)
        except RemoteProtocolError as error:
            parts.refusals.add(peer, "agreement", error)

    def receive_certificate(self, peer: PeerId, certificate: Certificate) -> None:
        """``peer`` says how a round ended."""
        if self.round is None or self.round.decided:
            return
        if (certificate.round, certificate.base) != (self.round.number, self.round.base.base):
            return  # an answer to what was asked before the round ended: nobody's fault
        try:
            self.round.receive_certificate(certificate)
        except RemoteProtocolError as error:
            self._parts.refusals.add(peer, "certificate", error)

    def answer_request(self, peer: PeerId, request: CertificateRequest) -> None:
        """``peer`` asks how a round ended."""
        self._answer(peer, request.round, request.base)

    def forget_peer(self, peer: PeerId) -> None:
        """``peer``'s session ended."""
        if self.round is not None:
            self.round.forget_peer(peer)

    def _answer(self, peer: PeerId, round_number: int, base: bytes) -> None:
        certificate = self._parts.lineage.certificate_of(round_number)
        if certificate is not None and certificate.base == base:
            self._parts.speaker.send(peer, CertificateReply(certificate=certificate))
