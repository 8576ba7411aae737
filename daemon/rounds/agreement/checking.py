"""What a message of a round must be to be taken in at all. Pure."""

from collections.abc import Callable

from daemon.rounds.agreement.ballot_box import Said
from daemon.rounds.agreement.quorums import Quorums
from protocol.agreement_messages import (
    Accept,
    AgreementMessage,
    Prepare,
    Prepared,
    Promise,
    Proposal,
    Start,
)
from protocol.codec import decode
from protocol.envelope import VerifiedMessage
from protocol.errors import VerificationError
from protocol.identity import PeerId


def checked_message(
    message: VerifiedMessage,
    *,
    round_number: int,
    base: bytes,
    quorums: Quorums,
    leaders: tuple[PeerId, ...],
    open_agreement: Callable[[bytes], VerifiedMessage],
) -> Said:
    """What ``message`` says, which is of this round, by one who may say it, and proven where it
    speaks of others. Raises :class:`RemoteProtocolError` otherwise."""
    content = decode(message.payload, AgreementMessage)
    signer = message.signer
    if content.round != round_number or content.base != base:
        raise VerificationError(
            f"agreement on round {content.round}, at {round_number}, from {signer}"
        )
    if signer not in quorums.roster:
        raise VerificationError(f"{signer} is not in the roster of round {round_number}")
    if isinstance(content, Start):
        raise VerificationError(f"Start in a round, from {signer}")
    said: Said = content
    match said:
        case Promise(prepared=Prepared() as prepared):
            if prepared.ballot >= said.ballot or not is_proven(
                prepared,
                round_number=round_number,
                base=base,
                quorums=quorums,
                open_agreement=open_agreement,
            ):
                raise VerificationError(f"prepared without a proof, says {signer}")
        case Proposal() if signer != leaders[said.ballot % len(leaders)]:
            raise VerificationError(f"{signer} does not lead ballot {said.ballot}")
        case Accept() if said.roster_size != len(quorums.roster):
            raise VerificationError(f"accept for a roster of {said.roster_size} from {signer}")
    return said


def is_proven(
    prepared: Prepared,
    *,
    round_number: int,
    base: bytes,
    quorums: Quorums,
    open_agreement: Callable[[bytes], VerifiedMessage],
) -> bool:
    """Whether members of the roster did vote for ``prepared``, more of them than can lie together.
    Raises :class:`RemoteProtocolError` when a vote in it is none."""
    expected = Prepare(
        round=round_number,
        base=base,
        ballot=prepared.ballot,
        outcome_digest=prepared.outcome.digest,
    )
    voters: set[PeerId] = set()
    for raw in prepared.votes:
        message = open_agreement(raw)
        if decode(message.payload, AgreementMessage) != expected:
            raise VerificationError(f"prepared by a vote for something else, {message.signer}")
        voters.add(message.signer)
    is_sound = len(voters) == len(prepared.votes) and voters <= quorums.roster
    return is_sound and quorums.is_proof(frozenset(voters))
