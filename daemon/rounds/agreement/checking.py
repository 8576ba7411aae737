"""What a message of a round must be to be taken in at all. Pure.

Example (daemon/rounds/agreement/agreement.py)::

    self._checks = Checks(round_number, base, self._leaders, voice)
    content = self._checks.content_of(message)
"""

from daemon.rounds.agreement.ballot_box import Said
from daemon.rounds.agreement.certificates import certificate_signers
from daemon.rounds.agreement.leaders import Leaders
from daemon.rounds.agreement.quorums import Quorums
from daemon.rounds.agreement.speaking import Voice
from protocol.codec import decode
from protocol.envelope import VerifiedMessage
from protocol.errors import VerificationError
from protocol.identity import PeerId
from protocol.peers.agreement_messages import (
    Accept,
    AgreementMessage,
    Certificate,
    Prepare,
    Prepared,
    Promise,
    Proposal,
    Start,
)


class OtherRosterError(VerificationError):
    """A message fits another roster than this peer's: of no use here, and nobody's fault.

    Two peers may have come to one state by different certificates, where few of the last roster
    lived and decided: the same updates, but not the same newcomers. Each goes by its own until one
    takes the other's next state.

    Example (daemon/rounds/at_hand.py)::

        try:
            self.round.receive_certificate(certificate)
        except OtherRosterError as error:
            _log.debug("from %s: %s", peer, error)
        except RemoteProtocolError as error:
            self._parts.refusals.add(peer, "certificate", error)
    """


class Checks:
    """The checks of one round's instance."""

    def __init__(
        self,
        round_number: int,
        base: bytes,
        leaders: Leaders,
        voice: Voice,
    ) -> None:
        self._round = round_number
        self._base = base
        self._quorums = Quorums(frozenset(leaders.order))
        self._leaders = leaders
        self._voice = voice

    def content_of(self, message: VerifiedMessage) -> Said:
        """What ``message`` says, which is of this round, by one who may say it, and proven where it
        speaks of others. Raises :class:`RemoteProtocolError` otherwise."""
        content = decode(message.payload, AgreementMessage)
        signer = message.signer
        if content.round != self._round or content.base != self._base:
            raise VerificationError(
                f"agreement on round {content.round}, at {self._round}, from {signer}"
            )
        if signer not in self._quorums.roster:
            raise OtherRosterError(f"{signer} is not in the roster of round {self._round}")
        if isinstance(content, Start):
            raise VerificationError(f"Start in a round, from {signer}")
        said: Said = content
        match said:
            case Promise(prepared=Prepared() as prepared):
                if prepared.ballot >= said.ballot or not self.is_proven(prepared):
                    raise VerificationError(f"prepared without a proof, says {signer}")
            case Proposal() if signer != self._leaders.of(said.ballot):
                raise OtherRosterError(f"{signer} does not lead ballot {said.ballot}")
            case Proposal() if len(said.promises) > len(self._leaders.order):
                raise VerificationError(f"proposal of {len(said.promises)} promises, by {signer}")
            case Accept() if said.roster_size != len(self._quorums.roster):
                raise OtherRosterError(f"accept for a roster of {said.roster_size} from {signer}")
        return said

    def voters_for(self, certificate: Certificate) -> frozenset[PeerId]:
        """Who of the roster voted for what ``certificate`` says. Raises
        :class:`RemoteProtocolError` when it is of another round or proves nothing."""
        if (certificate.round, certificate.base) != (self._round, self._base):
            raise VerificationError(f"certificate of round {certificate.round}, at {self._round}")
        roster = self._quorums.roster
        if certificate.roster_size != len(roster):
            raise OtherRosterError(f"certificate of a roster of {certificate.roster_size}")
        if len(certificate.accepts) > len(roster):  # Each takes a while to check.
            raise VerificationError(f"certificate of {len(certificate.accepts)} votes")
        signers = certificate_signers(certificate, self._voice.open_agreement) & roster
        if not signers:
            raise VerificationError(f"certificate of round {self._round} without a vote")
        return signers

    def is_proven(self, prepared: Prepared) -> bool:
        """Whether members of the roster did vote for ``prepared``, more of them than can lie
        together. Raises :class:`RemoteProtocolError` when a vote in it is none."""
        expected = Prepare(
            round=self._round,
            base=self._base,
            ballot=prepared.ballot,
            outcome_digest=prepared.outcome.digest,
        )
        if len(prepared.votes) > len(self._quorums.roster):
            return False  # Each takes a while to check.
        voters: set[PeerId] = set()
        for raw in prepared.votes:
            message = self._voice.open_agreement(raw)
            if decode(message.payload, AgreementMessage) != expected:
                raise VerificationError(f"prepared by a vote for something else, {message.signer}")
            voters.add(message.signer)
        is_sound = len(voters) == len(prepared.votes) and voters <= self._quorums.roster
        return is_sound and self._quorums.is_proof(frozenset(voters))
