"""What this peer itself says in a round: signed, stored, sent, and never anything else."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from daemon.rounds.agreement.ballot_box import BallotBox, Said
from daemon.rounds.agreement.electorate import Electorate
from daemon.rounds.agreement.leaders import Leaders
from daemon.rounds.agreement.vote_book import OwnVotes, VoteBook
from protocol.envelope import VerifiedMessage
from protocol.identity import PeerId, public_key_of
from protocol.peers.agreement_messages import (
    MAX_LAST,
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

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 4.0
"""The longest pause before a vote that could not be stored is tried again."""


class Voice(Protocol):
    """How a peer signs what it says, and checks what others signed."""

    def seal_agreement(self, message: AgreementMessage) -> bytes:
        """``message`` in an envelope of this peer's."""

    def open_agreement(self, raw: bytes) -> VerifiedMessage:
        """An agreement message of this swarm. Raises :class:`RemoteProtocolError`."""


class Speech:
    """One peer's own votes in one round.

    A vote that cannot be stored is neither counted nor sent. It waits, and is stored, counted and
    sent once there is room. Meanwhile this peer counts as one that does not live. The only voter of
    a roster is not kept waiting: nobody votes against it, and what is not stored it tells to
    nobody.
    """

    def __init__(
        self,
        voice: Voice,
        book: VoteBook,
        box: BallotBox,
        electorate: Electorate,
        leaders: Leaders,
        *,
        round_number: int,
        base: bytes,
    ) -> None:
        """``box``: where what is said counts as well. ``electorate``: whose roster it is; it learns
        when this peer cannot vote."""
        self.sits_out = ""
        """Why this peer does not vote at the moment; empty: it does."""
        self.retry_at: float | None = None
        """When to call :meth:`retry`; None: nothing waits to be stored."""
        self.prepared: Prepared | None = None
        """What this peer saw prepared last, with the proof; every later promise shows it."""
        self._voice = voice
        self._book = book
        self._box = box
        self._electorate = electorate
        self._round = round_number
        self._base = base
        self._roster = leaders.digest
        self._roster_size = len(leaders.order)
        self._ballot = 0
        self._has_vote = electorate.has_me
        self._is_only_voter = self._has_vote and self._roster_size == 1
        self._is_storable = True
        self._said: tuple[bytes, ...] = ()
        self._unstored: list[tuple[bytes, Said]] = []
        self._pause_s = FIRST_PAUSE_S
        self._outbox: list[bytes] = []

    def recall(self) -> OwnVotes | None:
        """What was said in this round before, by this process or one that was killed."""
        if not self._has_vote:
            return None
        try:
            return self._book.find(self._round, self._base)
        except OSError as error:
            if self._is_only_voter:
                self._is_storable = False
            else:
                self._has_vote = False
                self._sit_out(str(error))
            return None

    def is_of_this_roster(self, votes: OwnVotes) -> bool:
        """Whether the instance of then is this one."""
        return votes.roster == self._roster

    def begin_ballot(self, ballot: int) -> None:
        """Another ballot begins: votes from now on belong to it."""
        self._ballot = ballot
        self._said = ()
        self._unstored = []

    def repeat(self, votes: OwnVotes) -> None:
        """Say all of it again, word for word."""
        self._said = votes.envelopes
        self._outbox.extend(votes.envelopes)

    def promise(
        self,
        held: Iterable[UpdateRef],
        newcomers: Iterable[PeerId],
        slow: Iterable[PeerId],
        now: float,
    ) -> None:
        """This peer takes part in the ballot, holds these updates, and saw those lead slowly."""
        self._say(
            Promise(
                round=self._round,
                base=self._base,
                ballot=self._ballot,
                held=tuple(sorted(held)[:MAX_ROSTER]),
                newcomers=tuple(sorted(map(public_key_of, newcomers))[:MAX_ROSTER]),
                prepared=self.prepared,
                slow_to_lead=tuple(sorted(map(public_key_of, slow))[:MAX_LAST]),
            ),
            now,
        )

    def propose(self, outcome: Outcome, promises: Iterable[bytes], now: float) -> None:
        """This follows from the promises with these digests."""
        self._say(
            Proposal(
                round=self._round,
                base=self._base,
                ballot=self._ballot,
                outcome=outcome,
                promises=tuple(sorted(promises)),
            ),
            now,
        )

    def prepare(self, outcome: Outcome, now: float) -> None:
        """This peer checked a proposal of ``outcome`` and holds all of it."""
        self._say(
            Prepare(
                round=self._round,
                base=self._base,
                ballot=self._ballot,
                outcome_digest=outcome.digest,
            ),
            now,
        )

    def accept(self, outcome: Outcome, prepares: Mapping[PeerId, bytes] | None, now: float) -> None:
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
            ),
            now,
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

    def retry(self, now: float) -> None:
        """Store, count and send what waits for it, if it is time to try again."""
        if self.retry_at is not None and now >= self.retry_at:
            self._store(now)

    def _say(self, content: Said, now: float) -> None:
        """Sign, store, count and send, in this order."""
        if not self._has_vote:
            return
        raw = self._voice.seal_agreement(content)
        self._unstored.append((raw, content))
        if self._is_only_voter:
            self._box.add(self._voice.open_agreement(raw), content)
        if self._is_storable:
            self._store(now)

    def _store(self, now: float) -> None:
        raws = tuple(raw for raw, _ in self._unstored)
        votes = OwnVotes(
            round=self._round,
            base=self._base,
            roster=self._roster,
            ballot=self._ballot,
            envelopes=(*self._said, *raws),
            prepared=self.prepared,
        )
        try:
            self._book.keep(votes)
        except OSError as error:
            if not self._is_only_voter:
                self._sit_out(str(error))
                self.retry_at = now + self._pause_s
                self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            return
        self._said = votes.envelopes
        self._outbox.extend(raws)
        waited, self._unstored = self._unstored, []
        if not self._is_only_voter:
            for raw, content in waited:
                self._box.add(self._voice.open_agreement(raw), content)
        self.retry_at, self._pause_s = None, FIRST_PAUSE_S
        self._sit_out("")

    def show(self, others: Iterable[bytes]) -> None:
        """Hand on to everyone what others said."""
        self._outbox.extend(others)

    def take(self) -> list[bytes]:
        """What is to be sent to everyone."""
        out, self._outbox = self._outbox, []
        return out

    def _sit_out(self, reason: str) -> None:
        self.sits_out = reason
        self._electorate.set_mute(bool(reason))


def _in_order(votes: Mapping[PeerId, bytes]) -> tuple[bytes, ...]:
    return tuple(votes[peer] for peer in sorted(votes))
