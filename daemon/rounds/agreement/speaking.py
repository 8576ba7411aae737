"""What this peer itself says in a round: signed, stored, sent, and never anything else."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Protocol

from daemon.rounds.agreement.ballot_box import BallotBox, Said
from daemon.rounds.agreement.vote_book import OwnVotes, VoteBook
from protocol.agreement_messages import (
    MAX_ROSTER,
    Accept,
    AgreementMessage,
    Certificate,
    Outcome,
    Prepare,
    Prepared,
    Promise,
    Proposal,
    UpdateRef,
)
from protocol.envelope import VerifiedMessage
from protocol.identity import PeerId, public_key_of


class Voice(Protocol):
    """How a peer signs what it says, and checks what others signed."""

    def seal_agreement(self, message: AgreementMessage) -> bytes:
        """``message`` in an envelope of this peer's."""

    def open_agreement(self, raw: bytes) -> VerifiedMessage:
        """An agreement message of this swarm. Raises :class:`RemoteProtocolError`."""


class Speech:
    """One peer's own votes in one round."""

    def __init__(
        self,
        voice: Voice,
        book: VoteBook,
        box: BallotBox,
        *,
        round_number: int,
        base: bytes,
        roster: frozenset[PeerId],
        has_vote: bool,
    ) -> None:
        """``box``: where what is said counts as well. ``has_vote``: whether this peer is in the
        roster."""
        self.sits_out = ""
        """Why this peer does not vote in the round; empty: it does."""
        self.prepared: Prepared | None = None
        """What this peer saw prepared last, with the proof; every later promise shows it."""
        self._voice = voice
        self._book = book
        self._box = box
        self._round = round_number
        self._base = base
        self._roster = hashlib.sha256(b"".join(map(public_key_of, sorted(roster)))).digest()
        self._roster_size = len(roster)
        self._ballot = 0
        self._has_vote = has_vote
        self._said: tuple[bytes, ...] = ()
        self._outbox: list[bytes] = []

    def recall(self) -> OwnVotes | None:
        """What was said in this round before, by this process or one that was killed."""
        try:
            return self._book.find(self._round, self._base)
        except OSError as error:
            self._sit_out(error)
            return None

    def is_of_this_roster(self, votes: OwnVotes) -> bool:
        """Whether the instance of then is this one."""
        return votes.roster == self._roster

    def begin_ballot(self, ballot: int) -> None:
        """What is said from now on belongs to another ballot."""
        self._ballot = ballot
        self._said = ()

    def repeat(self, votes: OwnVotes) -> None:
        """Say all of it again, word for word."""
        self._said = votes.envelopes
        self._outbox.extend(votes.envelopes)

    def promise(self, held: Iterable[UpdateRef], newcomers: Iterable[PeerId]) -> None:
        """This peer takes part in the ballot, and holds these updates."""
        self._say(
            Promise(
                round=self._round,
                base=self._base,
                ballot=self._ballot,
                held=tuple(sorted(held)[:MAX_ROSTER]),
                newcomers=tuple(sorted(map(public_key_of, newcomers))[:MAX_ROSTER]),
                prepared=self.prepared,
            )
        )

    def propose(self, outcome: Outcome, promises: Iterable[bytes]) -> None:
        """This follows from the promises with these digests."""
        self._say(
            Proposal(
                round=self._round,
                base=self._base,
                ballot=self._ballot,
                outcome=outcome,
                promises=tuple(sorted(promises)),
            )
        )

    def prepare(self, outcome: Outcome) -> None:
        """This peer checked a proposal of ``outcome`` and holds all of it."""
        self._say(
            Prepare(
                round=self._round,
                base=self._base,
                ballot=self._ballot,
                outcome_digest=outcome.digest,
            )
        )

    def accept(self, outcome: Outcome, prepares: Mapping[PeerId, bytes] | None) -> None:
        """A quorum prepared ``outcome``; ``prepares``: their votes, where they are a proof."""
        if prepares is not None:
            self.prepared = Prepared(
                ballot=self._ballot, outcome=outcome, votes=_in_order(prepares)
            )
        self._say(
            Accept(
                round=self._round,
                base=self._base,
                ballot=self._ballot,
                outcome_digest=outcome.digest,
                roster_size=self._roster_size,
            )
        )

    def certificate(
        self, ballot: int, outcome: Outcome, accepts: Mapping[PeerId, bytes]
    ) -> Certificate:
        """The proof that a quorum accepted ``outcome``."""
        return Certificate(
            round=self._round,
            base=self._base,
            ballot=ballot,
            outcome=outcome,
            roster_size=self._roster_size,
            accepts=_in_order(accepts),
        )

    def _say(self, content: Said) -> None:
        """Sign, store, count and send, in this order; nothing if it cannot be stored."""
        if not self._has_vote:
            return
        raw = self._voice.seal_agreement(content)
        votes = OwnVotes(
            round=self._round,
            base=self._base,
            roster=self._roster,
            ballot=content.ballot,
            envelopes=(*self._said, raw),
            prepared=self.prepared,
        )
        try:
            self._book.keep(votes)
        except OSError as error:
            self._sit_out(error)
            return
        self._said = votes.envelopes
        self._box.add(self._voice.open_agreement(raw), content)
        self._outbox.append(raw)

    def show(self, others: Iterable[bytes]) -> None:
        """Hand on to everyone what others said."""
        self._outbox.extend(others)

    def take(self) -> list[bytes]:
        """What is to be sent to everyone."""
        out, self._outbox = self._outbox, []
        return out

    def _sit_out(self, error: OSError) -> None:
        self._has_vote = False
        self.sits_out = str(error)


def _in_order(votes: Mapping[PeerId, bytes]) -> tuple[bytes, ...]:
    return tuple(votes[peer] for peer in sorted(votes))
