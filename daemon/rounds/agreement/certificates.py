"""What certificates prove, and who is expected after one. Pure."""

from collections.abc import Callable

from daemon.rounds.agreement.quorums import full_quorum_of
from protocol.codec import decode
from protocol.envelope import VerifiedMessage
from protocol.errors import VerificationError
from protocol.identity import PeerId, peer_id_of
from protocol.peers.agreement_messages import Accept, AgreementMessage, Certificate, Outcome


def certificate_signers(
    certificate: Certificate, open_agreement: Callable[[bytes], VerifiedMessage]
) -> frozenset[PeerId]:
    """Who signed accepts of ``certificate``'s outcome.

    Raises :class:`RemoteProtocolError` when an accept in it is forged or says something else.
    """
    signers: set[PeerId] = set()
    expected = Accept(
        round=certificate.round,
        base=certificate.base,
        ballot=certificate.ballot,
        outcome_digest=certificate.outcome.digest,
        roster_size=certificate.roster_size,
    )
    for raw in certificate.accepts:
        message = open_agreement(raw)
        if decode(message.payload, AgreementMessage) != expected:
            raise VerificationError(f"certificate with a vote for something else, {message.signer}")
        if message.signer in signers:
            raise VerificationError(f"certificate with two votes of {message.signer}")
        signers.add(message.signer)
    return frozenset(signers)


def check_start(
    certificate: Certificate, open_agreement: Callable[[bytes], VerifiedMessage]
) -> frozenset[PeerId]:
    """Who started a swarm together by ``certificate``: all that it names.

    Raises :class:`RemoteProtocolError` unless each of them signed it.
    """
    signers = certificate_signers(certificate, open_agreement)
    named = next_roster(certificate.outcome)
    if certificate.outcome.updates or not named or signers != named:
        raise VerificationError(
            f"start of {len(named)} peers, signed by {len(signers & named)} of them"
        )
    return signers


def is_weak(certificate: Certificate) -> bool:
    """Whether fewer voted than it takes to bear liars: too few of the roster lived."""
    return len(certificate.accepts) < full_quorum_of(certificate.roster_size)


def weakness(certificate: Certificate) -> str:
    """The same in words that end a line about a round; empty unless it is weak."""
    if not is_weak(certificate):
        return ""
    return f", decided by only {len(certificate.accepts)} of {certificate.roster_size}"


def next_roster(outcome: Outcome) -> frozenset[PeerId]:
    """Who is expected in the round after the one that ended with ``outcome``.

    >>> from protocol.identity import Identity
    >>> from protocol.peers.agreement_messages import UpdateRef
    >>> ann, bob = Identity.generate(), Identity.generate()
    >>> averaged = (UpdateRef(ann.public_key, bytes(32)),)
    >>> next_roster(Outcome(averaged, newcomers=(bob.public_key,))) == {ann.peer_id, bob.peer_id}
    True
    """
    return frozenset(
        peer_id_of(key) for key in (*(ref.signer for ref in outcome.updates), *outcome.newcomers)
    )
