"""The round, or the gathering before one, that this peer is in now, and the messages for it."""

import logging

from daemon.rounds.agreement.checking import OtherRosterError
from daemon.rounds.early import EarlyMessages
from daemon.rounds.kinds.agreed_round import AgreedRound
from daemon.rounds.kinds.gossip_round import GossipRound
from daemon.rounds.parts import Parts
from daemon.rounds.start.beginning import Beginning
from daemon.rounds.start.gathering import Gathering
from protocol.codec import decode
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.peers.agreement_messages import AgreementMessage, Certificate
from protocol.peers.peer_messages import (
    Agreement,
    CertificateReply,
    CertificateRequest,
    PromiseRequest,
)

_log = logging.getLogger(__name__)


class AtHand:
    """Takes each agreement message to the round or gathering that it belongs to.

    One for the next round waits until that begins; one for a later one is of no use; one for an
    earlier round is answered with how that round ended. At most one of :attr:`round` and
    :attr:`gathering` is there.
    """

    def __init__(self, parts: Parts) -> None:
        self.round: AgreedRound | GossipRound | None = None
        self.gathering: Gathering | Beginning | None = None
        self._parts = parts
        self._early = EarlyMessages()

    def begin_round(self, round_: AgreedRound | GossipRound) -> None:
        """``round_`` begins; what came for it before goes to it now."""
        self.round, self.gathering = round_, None
        for peer, envelope in self._early.take(round_.number):
            self.receive(peer, envelope)

    def begin_gathering(self, gathering: Gathering | Beginning) -> None:
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
            elif isinstance(self.gathering, Gathering) and here == (
                position.round,
                position.base,
            ):
                self.gathering.receive(message, parts.clock.monotonic())
                parts.changes.notify()
            elif content.round > position.round:
                # Peers that are further ahead are caught up with by state, not by message.
                if content.round <= position.round + 2 and self._is_known(message.signer):
                    kind = type(content).__name__
                    self._early.add(peer, message.signer, kind, content.round, envelope)
            elif peer == message.signer:
                # Who hands on what others said cannot make this peer flood them.
                self._answer(peer, content.round, content.base)
        except OtherRosterError as error:
            _log.debug("from %s: %s", peer, error)
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
        except OtherRosterError as error:
            _log.debug("from %s: %s", peer, error)
        except RemoteProtocolError as error:
            self._parts.refusals.add(peer, "certificate", error)

    def answer_request(self, peer: PeerId, request: CertificateRequest) -> None:
        """``peer`` asks how a round ended."""
        self._answer(peer, request.round, request.base)

    def answer_promises(self, peer: PeerId, request: PromiseRequest) -> None:
        """``peer`` lacks promises that a proposal of this peer's names."""
        round_ = self.round
        if not isinstance(round_, AgreedRound) or (request.round, request.base) != (
            round_.number,
            round_.base.base,
        ):
            return
        for digest in request.digests:
            envelope = round_.promise(digest)
            if envelope is not None:
                self._parts.speaker.send(peer, Agreement(envelope=envelope))

    def _is_known(self, signer: PeerId) -> bool:
        parts = self._parts
        return signer in parts.lineage.roster or parts.standings.get(signer) is not None

    def forget_peer(self, peer: PeerId) -> None:
        """``peer``'s session ended."""
        if self.round is not None:
            self.round.forget_peer(peer)

    def _answer(self, peer: PeerId, round_number: int, base: bytes) -> None:
        certificate = self._parts.lineage.certificate_of(round_number)
        if certificate is not None and certificate.base == base:
            self._parts.speaker.send(peer, CertificateReply(certificate=certificate))
