"""Gets peers that hold the same state, and are in no round, to start one together.

At the beginning of a swarm and after a restart of all of it there is no roster that could agree on
anything. So the lowest peer id among those that are ready proposes a roster (Start), and when every
peer in it has accepted, their accepts are the certificate that the first round's roster follows
from. A peer that is left out, or comes later, joins the running swarm as any newcomer. Sans-IO.
"""

from collections.abc import Callable

from protocol.agreement_messages import Accept, AgreementMessage, Certificate, Outcome, Start
from protocol.codec import decode
from protocol.envelope import VerifiedMessage
from protocol.errors import VerificationError
from protocol.identity import PeerId, public_key_of

SETTLE_S = 0.5
"""The candidates have to be the same for so long: peers that arrive together start together."""
PROPOSAL_TIMEOUT_S = 3.0
"""After so long without all accepts a proposal is given up."""
ACCEPT_LIFETIME_S = 5.0
"""For so long an accept binds its signer to one proposal; longer than the proposal lives."""
FULL_PATIENCE_S = 5.0
"""How long a restarted swarm waits for all of its last roster: one of them may have completed a
round that the others were killed in."""
PATIENCE_S = 20.0
"""How long it waits for most of them."""


class Gathering:
    """One peer's part in starting from the state of one round."""

    def __init__(
        self,
        me: PeerId,
        *,
        round_number: int,
        base: bytes,
        last_roster: frozenset[PeerId],
        min_peers: int,
        open_agreement: Callable[[bytes], VerifiedMessage],
        now: float,
    ) -> None:
        """``last_roster``: who was expected next when the swarm last ran; empty at round 0."""
        self._me = me
        self._round = round_number
        self._base = base
        self._last_roster = last_roster
        self._min_peers = min_peers
        self._open = open_agreement
        self._since = now
        self._candidates: frozenset[PeerId] = frozenset()
        self._candidates_since = now
        self._proposed_until: float | None = None
        self._accepted: tuple[bytes, float] | None = None
        self._starts: dict[PeerId, Outcome] = {}
        self._accepts: dict[PeerId, tuple[bytes, bytes]] = {}
        self._outbox: list[AgreementMessage] = []
        self.certificate: Certificate | None = None
        """Set once everybody in a proposed roster has accepted it."""

    def set_candidates(self, candidates: frozenset[PeerId], now: float) -> None:
        """The peers, this one included, that are ready to start from this state."""
        if candidates != self._candidates:
            self._candidates = candidates
            self._candidates_since = now
            self._starts = {
                peer: outcome for peer, outcome in self._starts.items() if peer in candidates
            }
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
        """When :meth:`handle_timer` wants to be called."""
        if self.certificate is not None or self._me != min(self._candidates, default=None):
            return None
        if self._proposed_until is not None:
            return self._proposed_until
        return self._may_start_at()

    def handle_timer(self, now: float) -> None:
        """Time has passed."""
        if self._proposed_until is not None and now >= self._proposed_until:
            self._proposed_until = None
        may_start_at = self._may_start_at()
        if (
            self.certificate is None
            and self._proposed_until is None
            and self._me == min(self._candidates, default=None)
            and may_start_at is not None
            and now >= may_start_at
        ):
            self._proposed_until = now + PROPOSAL_TIMEOUT_S
            outcome = Outcome(
                updates=(), newcomers=tuple(sorted(map(public_key_of, self._candidates)))
            )
            self._outbox.append(Start(round=self._round, base=self._base, outcome=outcome))

    def _may_start_at(self) -> float | None:
        """From when on the present candidates may start; None: not before more have come."""
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
        if public_key_of(self._me) not in outcome.newcomers:
            return
        if self._accepted is not None:
            digest, until = self._accepted
            if now < until and digest != outcome.digest:
                return
        self._starts[signer] = outcome
        self._accepted = (outcome.digest, now + ACCEPT_LIFETIME_S)
        self._outbox.append(
            Accept(round=self._round, base=self._base, ballot=0, outcome_digest=outcome.digest)
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
                    accepts=tuple(votes[key] for key in outcome.newcomers),
                )
                return
