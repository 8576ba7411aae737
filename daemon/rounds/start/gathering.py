"""Gets peers that hold the same state, and are in no round, to start one together.

At the beginning of a swarm, and after a restart of all of it, no roster exists that could agree on
anything. So one of the ready peers proposes a roster (Start). When every peer in it has accepted,
the accepts are the certificate from which the first round's roster follows. A peer that is left
out, or comes later, joins the running swarm as any newcomer does. Sans-IO.

Only peers with a session that say that they are ready here have a say. The lowest id proposes. A
peer that proposed in vain comes after all others, and the next one's turn comes by time alone. A
peer that was named and did not accept is left out for a growing time. So a peer that lies costs
some seconds, once. Nobody accepts a roster that lacks more than a third of those that it would name
itself: where fewer than a third lie, two such rosters share an honest peer, which accepts one at a
time. So nobody starts two swarms out of one, or one of itself and few others.
"""

from daemon.rounds.agreement.certificates import next_roster
from protocol.codec import decode
from protocol.envelope import VerifiedMessage
from protocol.errors import VerificationError
from protocol.identity import PeerId, public_key_of
from protocol.peers.agreement_messages import (
    MAX_ROSTER,
    Accept,
    AgreementMessage,
    Certificate,
    Outcome,
    Start,
)

SETTLE_S = 0.5
"""The candidates have to be the same for so long: peers that arrive together start together."""
PROPOSAL_TIMEOUT_S = 3.0
"""A proposal that lacks accepts for so long is given up."""
REPEAT_S = 0.5
"""A proposal is said again so often while it lives: peers come to know at different moments that
its sender is ready, and before that they take nothing of it."""
ACCEPT_LIFETIME_S = 5.0
"""How long an accept binds its signer to one proposal; longer than the proposal lives."""
TURN_S = 6.0
"""The time from one peer's turn to propose to the next peer's."""
LEFT_OUT_S = 10.0
"""How long a peer that did not accept is left out; twice as long each time."""
FULL_PATIENCE_S = 5.0
"""How long a restarted swarm waits for all of its last roster: one of them may have completed a
round that the others were killed in."""
PATIENCE_S = 20.0
"""How long it waits for most of them."""


class Gathering:
    """One peer's part in starting from the state of one round.

    Example (daemon/rounds/training.py)::

        gathering.set_candidates(waiting | {self._parts.me}, now)
        for message in gathering.messages_to_send():
    """

    def __init__(
        self,
        me: PeerId,
        *,
        round_number: int,
        base: bytes,
        last_roster: frozenset[PeerId],
        min_peers: int,
        now: float,
    ) -> None:
        """``last_roster``: who was expected next when the swarm last ran; empty at round 0."""
        self._me = me
        self._round = round_number
        self._base = base
        self._last_roster = last_roster
        self._min_peers = min_peers
        self._since = now
        self._candidates: frozenset[PeerId] = frozenset()
        self._candidates_since = now
        self._turns_since = now
        self._failed: dict[PeerId, int] = {}
        """How often who proposed in vain."""
        self._left_out: dict[PeerId, tuple[int, float]] = {}
        """Who did not accept: how often, and until when it is left out."""
        self._proposed_until: float | None = None
        self._proposal: Start | None = None
        self._repeats_at = now
        self._accepted: tuple[PeerId, bytes, float] | None = None
        self._starts: dict[PeerId, Outcome] = {}
        self._accepts: dict[PeerId, tuple[bytes, bytes]] = {}
        self._outbox: list[AgreementMessage] = []
        self.certificate: Certificate | None = None
        """Set once everybody in a proposed roster has accepted it."""

    def set_candidates(self, candidates: frozenset[PeerId], now: float) -> None:
        """The peers, this one included, that are ready to start from this state."""
        if candidates != self._candidates:
            self._candidates = candidates
            self._candidates_since = self._turns_since = now
            self._starts = {peer: one for peer, one in self._starts.items() if peer in candidates}
            self._accepts = {peer: one for peer, one in self._accepts.items() if peer in candidates}
            self._failed = {peer: one for peer, one in self._failed.items() if peer in candidates}
        self.handle_timer(now)

    def needed(self) -> str:
        """What is still waited for, for people."""
        if self._round == 0:
            return f"{len(self._candidates)} of {self._min_peers} peers are ready"
        return (
            f"{len(self._candidates)} of {len(self._last_roster)} peers of the last round are back"
        )

    def receive(self, message: VerifiedMessage, now: float) -> None:
        """Take a signed Start or Accept in. Raises :class:`VerificationError` for a foreign one."""
        content = decode(message.payload, AgreementMessage)
        if (content.round, content.base) != (self._round, self._base):
            raise VerificationError(f"start from round {content.round}, at {self._round}")
        if message.signer not in self._candidates:
            return  # not known to be ready here, yet or any more: nobody's fault
        match content:
            case Start():
                self._take_start(message.signer, content.outcome, now)
            case Accept():
                self._accepts[message.signer] = (content.outcome_digest, message.raw)
            case _:
                raise VerificationError(f"{type(content).__name__} while gathering")
        self._conclude()

    def messages_to_send(self) -> list[AgreementMessage]:
        """Messages to sign and send to everyone; signed copies also go to :meth:`receive`."""
        out, self._outbox = self._outbox, []
        return out

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` wants to be called; always later than its last call."""
        if self.certificate is not None:
            return None
        moments = [self._proposed_until, self._accepted[2] if self._accepted else None]
        if self._proposed_until is not None:
            moments.append(self._repeats_at)
        if self._proposed_until is None and self._accepted is None:
            moments.append(self._turn_of(self._me))
        return min((moment for moment in moments if moment is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Time has passed."""
        if self.certificate is not None:
            return
        if self._proposed_until is not None and now >= self._proposed_until:
            self._proposed_until = None
        if self._accepted is not None and now >= self._accepted[2]:
            self._note_failure(self._accepted[0], now)
            self._accepted = None
        if self._proposed_until is not None and now >= self._repeats_at:
            self._say_proposal(now)
        turn = self._turn_of(self._me)
        if self._proposed_until is not None or turn is None or now < turn:
            return
        if self._accepted is None:
            self._proposed_until = now + PROPOSAL_TIMEOUT_S
            keys = sorted(map(public_key_of, self._named(now)))
            outcome = Outcome(updates=(), newcomers=tuple(keys[:MAX_ROSTER]))
            self._proposal = Start(round=self._round, base=self._base, outcome=outcome)
            self._say_proposal(now)

    def _say_proposal(self, now: float) -> None:
        """Say it, and once this peer has accepted it itself, that too."""
        assert self._proposal is not None
        self._outbox.append(self._proposal)
        if self._accepted is not None and self._accepted[0] == self._me:
            self._outbox.append(self._accept(self._proposal.outcome))
        self._repeats_at = now + REPEAT_S

    def _named(self, now: float) -> frozenset[PeerId]:
        """The candidates but for those who are left out, if enough remain."""
        named = frozenset(
            peer
            for peer in self._candidates
            if peer == self._me or self._left_out.get(peer, (0, now))[1] <= now
        )
        enough = self._round > 0 or len(named) >= self._min_peers
        return named if enough else self._candidates

    def _lacks(self, named: frozenset[PeerId], now: float) -> bool:
        """Whether a roster is not to be accepted, since it leaves too many out."""
        if self._round == 0 and len(named) < min(self._min_peers, len(self._candidates)):
            return True
        return 3 * len(self._named(now) - named) > len(self._candidates)

    def _turn_of(self, peer: PeerId) -> float | None:
        """The moment from which ``peer`` may propose, if nobody before it has done so in time."""
        may_start_at = self._may_start_at()
        if may_start_at is None or peer not in self._candidates:
            return None
        order = sorted(self._candidates, key=lambda one: (self._failed.get(one, 0), one))
        return max(may_start_at, self._turns_since) + order.index(peer) * TURN_S

    def _note_failure(self, proposer: PeerId, now: float) -> None:
        """A proposal that this peer accepted came to nothing."""
        outcome = self._starts.pop(proposer, None)
        self._turns_since = now
        self._failed[proposer] = self._failed.get(proposer, 0) + 1
        if outcome is None:
            return
        for peer in next_roster(outcome) - {self._me}:
            if self._accepts.get(peer, (b"", b""))[0] != outcome.digest:
                times = self._left_out.get(peer, (0, 0.0))[0] + 1
                if peer in self._left_out or len(self._left_out) < MAX_ROSTER:
                    self._left_out[peer] = (times, now + LEFT_OUT_S * 2 ** min(times, 10))

    def _may_start_at(self) -> float | None:
        """The moment from which the present candidates may start; None: not before more have
        come."""
        settled_at = self._candidates_since + SETTLE_S
        if self._round == 0:
            return settled_at if len(self._candidates) >= self._min_peers else None
        back = self._candidates & self._last_roster
        if self._last_roster and back == self._last_roster:
            return settled_at
        are_most = 2 * len(back) > len(self._last_roster)
        return max(settled_at, self._since + (FULL_PATIENCE_S if are_most else PATIENCE_S))

    def _take_start(self, signer: PeerId, outcome: Outcome, now: float) -> None:
        if outcome.updates:
            raise VerificationError(f"start with updates from {signer}")
        named = next_roster(outcome)
        if self._me not in named or not named <= self._candidates or self._lacks(named, now):
            return  # a peer that sees other peers ready than this one does proposes another roster
        turn = self._turn_of(signer)
        if signer != self._me and (turn is None or now < turn - SETTLE_S):
            return
        if self._accepted is not None and now < self._accepted[2]:
            return
        self._starts[signer] = outcome
        self._accepted = (signer, outcome.digest, now + ACCEPT_LIFETIME_S)
        self._outbox.append(self._accept(outcome))

    def _accept(self, outcome: Outcome) -> Accept:
        return Accept(
            round=self._round,
            base=self._base,
            ballot=0,
            outcome_digest=outcome.digest,
            roster_size=len(outcome.newcomers),
        )

    def _conclude(self) -> None:
        for outcome in self._starts.values():
            digest = outcome.digest
            votes = {
                public_key_of(peer): raw
                for peer, (voted, raw) in self._accepts.items()
                if voted == digest
            }
            if set(outcome.newcomers) <= votes.keys():
                self.certificate = Certificate(
                    round=self._round,
                    base=self._base,
                    ballot=0,
                    outcome=outcome,
                    roster_size=len(outcome.newcomers),
                    accepts=tuple(votes[key] for key in outcome.newcomers),
                )
                return
