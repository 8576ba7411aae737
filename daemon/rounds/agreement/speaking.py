"""What this peer itself says in a round: signed, stored, sent, and never anything else."""

import hashlib
from collections.abc import Iterable
from typing import Protocol

from daemon.rounds.agreement.ballot_box import BallotBox, Said
from daemon.rounds.agreement.vote_book import OwnVotes, VoteBook
from protocol.agreement_messages import AgreementMessage, Prepared
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
        self._voice = voice
        self._book = book
        self._box = box
        self._round = round_number
        self._base = base
        self._roster = hashlib.sha256(b"".join(map(public_key_of, sorted(roster)))).digest()
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

    def begin_ballot(self) -> None:
        """What is said from now on belongs to another ballot."""
        self._said = ()

    def repeat(self, votes: OwnVotes) -> None:
        """Say all of it again, word for word."""
        self._said = votes.envelopes
        self._outbox.extend(votes.envelopes)

    def say(self, content: Said, prepared: Prepared | None) -> None:
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
            prepared=prepared,
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
