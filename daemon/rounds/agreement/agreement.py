"""One peer's part in one round's agreement; how it works, the package's docstring tells.

Sans-IO: signed messages and the time go in; envelopes to send, wants and the outcome come out.

Example (daemon/rounds/kinds/agreed_round.py)::

    self._agreement.set_held(frozenset(held.values()), now)
    for envelope in self._agreement.envelopes_to_send():
    while (event := self._agreement.next_event()) is not None:
"""

from daemon.rounds.agreement.ballot_box import BallotBox
from daemon.rounds.agreement.ballot_clock import BallotClock
from daemon.rounds.agreement.checking import Checks
from daemon.rounds.agreement.electorate import Electorate
from daemon.rounds.agreement.events import (
    AgreementEvent,
    Contradiction,
    Decided,
    Foul,
    Want,
    WantPromises,
)
from daemon.rounds.agreement.leaders import Leaders
from daemon.rounds.agreement.pace import NOTHING_YET, Pace, Past
from daemon.rounds.agreement.proposing import set_that_follows
from daemon.rounds.agreement.speaking import Speech, Voice
from daemon.rounds.agreement.states import TRANSITIONS, AgreementState, Cause
from daemon.rounds.agreement.vote_book import OwnVotes, VoteBook
from protocol.envelope import VerifiedMessage
from protocol.errors import RemoteProtocolError, VerificationError
from protocol.identity import PeerId
from protocol.peers.agreement_messages import (
    MAX_BALLOT,
    Accept,
    Certificate,
    Outcome,
    Prepare,
    Promise,
    Proposal,
    UpdateRef,
)

HURRY_S = 5.0
"""A peer closes so long after more than can lie together have done so."""


class RoundAgreement:
    """One peer's part in one round's agreement."""

    def __init__(
        self,
        me: PeerId,
        *,
        round_number: int,
        base: bytes,
        roster: frozenset[PeerId],
        voice: Voice,
        votes: VoteBook,
        needed_updates: int = 1,
        past: Past = NOTHING_YET,
    ) -> None:
        """``needed_updates``: how many the swarm's rule needs to do anything. ``past``: who took
        its time in the rounds before."""
        self.round = round_number
        self.base = base
        self.roster = roster
        self.state = AgreementState.OPEN
        self._me = me
        self._voice = voice
        self._needed_updates = needed_updates
        self._electorate = Electorate(me, roster)
        self._leaders = Leaders(roster, round_number, base, past.last_to_lead)
        self._pace = Pace(me, past)
        self._checks = Checks(round_number, base, self._leaders, voice)
        self._box = BallotBox()
        self._held: frozenset[UpdateRef] = frozenset()
        self._newcomers: frozenset[PeerId] = frozenset()
        self._clock = BallotClock()
        self._hurry_at: float | None = None
        self._speech = Speech(
            voice,
            votes,
            self._box,
            self._electorate,
            self._leaders,
            round_number=round_number,
            base=base,
        )
        self._events: list[AgreementEvent] = []
        self._asked: tuple[object, ...] = ()
        self._shown: frozenset[PeerId] = frozenset()
        self._outcomes: dict[bytes, Outcome] = {}

    # What goes in

    def set_live(
        self, live: frozenset[PeerId], now: float, offenders: frozenset[PeerId] = frozenset()
    ) -> None:
        """Who of the roster can answer at the moment; this peer itself always can.
        ``offenders``: whose votes count no more, since they contradicted themselves."""
        if self._electorate.update(live, offenders):
            self._advance(now)

    def set_held(self, held: frozenset[UpdateRef], now: float) -> None:
        """The updates that this peer holds, whole and checked."""
        if held != self._held:
            self._held = held
            self._advance(now)

    def set_newcomers(self, peers: frozenset[PeerId]) -> None:
        """Who, outside the roster, could take part in the next round."""
        self._newcomers = peers

    def close(self, now: float) -> None:
        """Close the round: promise what is held. Does nothing when it is closed already."""
        if self.state is AgreementState.OPEN:
            self._close(now)
            self._advance(now)

    def receive(self, message: VerifiedMessage, now: float) -> None:
        """Take a signed message in. Raises :class:`RemoteProtocolError` for a foul one."""
        content = self._checks.content_of(message)
        if isinstance(content, Proposal) and content.ballot < self._ballot:
            return
        if isinstance(content, Promise) and content.ballot >= self._ballot:
            self._electorate.hear(message.signer)
        contradicted = self._box.add(message, content)
        if contradicted is not None:
            self._events.append(Contradiction(message.signer, contradicted.raw, message.raw))
        self._advance(now)

    def receive_certificate(self, certificate: Certificate, now: float) -> None:
        """Adopt what others decided, if it has the votes that a decision takes as this peer sees
        it. Others may see fewer that live, and need fewer: that is nobody's fault.

        Raises :class:`RemoteProtocolError` when it is no proof of anything.
        """
        if self.state is AgreementState.DECIDED:
            return
        if self._electorate.is_quorum(self._checks.voters_for(certificate)):
            self._decide(certificate)

    # What comes out

    @property
    def listed(self) -> dict[UpdateRef, set[PeerId]]:
        """The updates that promising peers say they hold, and who says it."""
        return self._box.listed()

    def envelope(self, digest: bytes) -> bytes | None:
        """The signed promise with this digest, for one that asks."""
        return self._box.find(digest)

    def envelopes_to_send(self) -> list[bytes]:
        """Signed messages to send to everyone."""
        return self._speech.take()

    @property
    def sits_out(self) -> str:
        """Why this peer does not vote at the moment; empty: it does."""
        return self._speech.sits_out

    def next_event(self) -> AgreementEvent | None:
        """The next thing to act on."""
        if self.state is not AgreementState.DECIDED:
            self._events.extend(self._pace.take_events())
        return self._events.pop(0) if self._events else None

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` wants to be called."""
        if self.state is AgreementState.OPEN:
            return self._hurry_at
        if not self._is_under_way:
            return None
        return self._clock.get_timer(self._speech.retry_at, self._pace.get_timer())

    def handle_timer(self, now: float) -> None:
        """Time has passed."""
        if self.state is AgreementState.OPEN and self._hurry_at is not None:
            if now >= self._hurry_at:
                self.close(now)
            return
        if not self._is_under_way:
            return
        self._speech.retry(now)
        self._pace.judge(now, self._here, self._electorate.living - self._pace.late)
        self._clock.tick(now)
        if self._clock.is_over(now):
            self._enter(self._ballot + 1, now)
        elif self._clock.has_waited_in_vain(now):
            self._wait_no_longer()
        self._advance(now)

    # Inside

    @property
    def _ballot(self) -> int:
        return self._clock.ballot

    @property
    def _is_under_way(self) -> bool:
        ends = (AgreementState.OPEN, AgreementState.DECIDED, AgreementState.FAILED)
        return self._me in self.roster and self.state not in ends

    def _go(self, cause: Cause) -> None:
        self.state = TRANSITIONS[self.state, cause]

    @property
    def _here(self) -> frozenset[PeerId]:
        """Who has come to this ballot, or a later one."""
        ballots = self._box.ballots(Promise)
        return frozenset(peer for peer, reached in ballots.items() if reached >= self._ballot)

    def _wait_no_longer(self) -> None:
        """No quorum came to this ballot: show who is here, then pass over those that hang.

        Liars may have promised to a few only, and who was away missed what was said. Only who was
        shown more than can lie together, a whole wait ago, and still says nothing hangs.
        """
        promises = self._box.promises_from(self._ballot)
        self._speech.show(promises.values())
        if self._electorate.makes_others_come(self._shown):
            self._electorate.pass_over_who_is_behind(self._box.ballots(Promise), self._ballot)
        self._shown = frozenset(promises)

    def _close(self, now: float) -> None:
        """Take part from now on: where this peer left off, or in the first ballot."""
        before = self._speech.recall()
        if before is None:
            self._enter(0, now)
            return
        try:
            self._repeat(before, now)
        except RemoteProtocolError:
            # Not this peer's, or of another swarm: none of it is said again.
            self._enter(min(before.ballot + 1, MAX_BALLOT), now)

    def _repeat(self, before: OwnVotes, now: float) -> None:
        """Say again what was said. Raises :class:`RemoteProtocolError` if that cannot have been
        this peer."""
        prepared = before.prepared
        if prepared is not None and self._checks.is_proven(prepared):
            self._speech.prepared = prepared
            self._outcomes[prepared.outcome.digest] = prepared.outcome
        if not self._speech.is_of_this_roster(before):
            self._enter(min(before.ballot + 1, MAX_BALLOT), now)
            return
        messages = [self._voice.open_agreement(raw) for raw in before.envelopes]
        contents = [self._checks.content_of(message) for message in messages]
        if any(message.signer != self._me for message in messages):
            raise VerificationError("votes of another peer")
        self._begin_ballot(before.ballot, now)
        self._speech.repeat(before)
        for message, content in zip(messages, contents, strict=True):
            self._box.add(message, content)
            if isinstance(content, Prepare):
                self._go(Cause.HOLDS_UPDATES)
            elif isinstance(content, Accept):
                self._go(Cause.QUORUM_PREPARED)

    def _begin_ballot(self, ballot: int, now: float) -> None:
        self._clock.begin(ballot, now)
        self._pace.begin_ballot(self._leaders.of(ballot))
        self._speech.begin_ballot(ballot)
        self._asked = ()
        self._shown = frozenset()
        self._go(Cause.NEW_BALLOT)

    def _enter(self, ballot: int, now: float) -> None:
        """Promise to take part in ``ballot`` and in none before it."""
        if ballot > MAX_BALLOT:
            self._go(Cause.OUT_OF_BALLOTS)
            return
        self._begin_ballot(ballot, now)
        self._speech.promise(self._held, self._newcomers, self._pace.slow & self.roster, now)

    def _advance(self, now: float) -> None:
        """Do whatever the present knowledge allows."""
        is_over = self.state in (AgreementState.DECIDED, AgreementState.FAILED)
        if is_over or self._tally() or self._me not in self.roster:
            return
        if self.state is AgreementState.OPEN:
            closed = self._box.ballots(Promise)
            if not self._electorate.are_most(closed):
                if self._hurry_at is None and self._electorate.is_reason_to_close(closed):
                    self._hurry_at = now + HURRY_S
                return
            self._close(now)
        ballot = self._ballot_to_be_in(now)
        if ballot > self._ballot:
            self._enter(ballot, now)
            if not self._is_under_way:
                return
        if self._clock.waits_for_quorum and self._electorate.is_vote(self._here):
            self._clock.quorum_came(now)
            self._pace.quorum_came(now)
        leader = self._leaders.of(self._ballot)
        proposal = self._box.at(Proposal, self._ballot).get(leader)
        if proposal is None and leader == self._me and self._lead(now):
            proposal = self._box.at(Proposal, self._ballot).get(leader)
        if proposal is not None and self._consider(leader, proposal, now):
            self._accept(proposal, now)
            self._tally()

    def _ballot_to_be_in(self, now: float) -> int:
        """The later ballot that more than the liars are in, led by one who lives."""
        ballots = self._box.ballots(Promise)
        ballot = max(self._ballot, self._electorate.ballot_to_follow(ballots))
        if self._electorate.may_follow_one(ballots, ballot) and self._clock.may_step_on(now):
            ballot = max(ballot, self._ballot + 1)
        return self._leaders.next(ballot, self._electorate.living)

    def _lead(self, now: float) -> bool:
        """Propose what follows, once enough have promised; whether that is done."""
        promises = self._box.envelopes(Promise, self._ballot)
        living = self._electorate.living
        if self._me not in promises or not self._electorate.is_vote(promises):
            return False
        awaited = living - self._pace.late
        if not awaited <= promises.keys() and self._clock.is_patient(now):
            return False
        self._clock.end_patience()
        alive = {peer: one for peer, one in promises.items() if peer in living}
        use = alive if self._electorate.is_vote(alive) else promises
        contents = self._box.at(Promise, self._ballot)
        outcome = set_that_follows({peer: contents[peer] for peer in use}, self._needed_updates)
        if self._lacks(outcome):
            return False
        self._speech.propose(outcome, [one.digest for one in use.values()], now)
        return True

    def _consider(self, leader: PeerId, proposal: Proposal, now: float) -> bool:
        """Check the leader's proposal and vote for it; whether this peer has."""
        if self.state not in (AgreementState.PROMISED, AgreementState.FETCHING):
            return self.state is AgreementState.PREPARED
        named = self._box.promises_named(proposal.promises, self._ballot)
        missing = set(proposal.promises) - named.keys()
        if missing:
            self._ask(WantPromises(tuple(sorted(missing)), leader))
            return False
        promises = dict(named.values())
        is_one_each = 0 < len(promises) == len(named)
        if not is_one_each or set_that_follows(promises, self._needed_updates) != proposal.outcome:
            self._events.append(Foul(leader, "proposal that its promises do not lead to"))
            self._leaders.note_foul(self._ballot)
            self._pace.see_foul()
            self._advance(now)
            return False
        if not self._electorate.is_quorum(promises):
            return False
        self._pace.see_proposal()
        self._outcomes[proposal.outcome.digest] = proposal.outcome
        if self._lacks(proposal.outcome):
            if self.state is AgreementState.PROMISED:
                self._go(Cause.LACKS_UPDATES)
            return False
        self._go(Cause.HOLDS_UPDATES)
        self._speech.prepare(proposal.outcome, now)
        return True

    def _lacks(self, outcome: Outcome) -> bool:
        missing = tuple(ref for ref in outcome.updates if ref not in self._held)
        if missing:
            holders = self._box.holders(missing)
            self._ask(Want(missing, tuple(sorted(holders - {self._me}))))
        return bool(missing)

    def _ask(self, want: Want | WantPromises) -> None:
        """Ask once for each thing that is missing; the round asks again by itself."""
        key = want.updates if isinstance(want, Want) else want.digests
        if key != self._asked:
            self._asked = key
            self._events.append(want)

    def _accept(self, proposal: Proposal, now: float) -> None:
        """Accept the proposal once a quorum has prepared it."""
        digest = proposal.outcome.digest
        votes = self._electorate.counted(self._box.prepares(self._ballot, digest))
        if self.state is not AgreementState.PREPARED or not self._electorate.is_quorum(votes):
            return
        is_proof = self._electorate.quorums.is_proof(frozenset(votes))
        self._go(Cause.QUORUM_PREPARED)
        self._speech.accept(proposal.outcome, votes if is_proof else None, now)

    def _tally(self) -> bool:
        """Decide if a quorum has accepted one outcome in one ballot."""
        for ballot, digest, cast in self._box.accepts():
            outcome = self._outcomes.get(digest) or self._box.proposed(digest)
            votes = self._electorate.counted(cast)
            if outcome is not None and self._electorate.is_quorum(votes):
                self._decide(self._speech.certificate(ballot, outcome, votes))
                return True
        return False

    def _decide(self, certificate: Certificate) -> None:
        self._go(Cause.CERTIFICATE)
        self._pace.end(self._here)
        self._events.extend((*self._pace.take_events(), Decided(certificate)))
