"""Agrees on one round's set of updates, so that those who live through it hold equal weights.

Single-decree Paxos among the round's roster (protocol/agreement_messages.py). Sans-IO: signed
messages and the time go in; messages to sign and send, wants and the outcome come out.

Invariants:

- Nothing counts that is not in an envelope signed by a member of the roster.
- A proposal is checked against the promises that it shows: the set is what half of them or more
  list, or what a promise says was accepted before. Its leader chooses nothing.
- A set with fewer updates than the swarm's rule needs (krum) is never decided on.
- A peer accepts only what it holds, so that a decided update survives with whoever accepted it.
- A quorum is a majority of the roster while a majority lives. When fewer live, it is a majority of
  those: training goes on, and a partition can then decide twice (daemon/rounds/lineage/lineage.py
  mends that).
"""

import enum
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from protocol.agreement_messages import (
    NO_BALLOT,
    Accept,
    AgreementMessage,
    Certificate,
    Outcome,
    Promise,
    Proposal,
    UpdateRef,
)
from protocol.codec import decode
from protocol.envelope import VerifiedMessage
from protocol.errors import VerificationError
from protocol.identity import PeerId, peer_id_of, public_key_of

PATIENCE_S = 2.0
"""How long a leader with a quorum of promises waits for those of the other live peers."""
BALLOT_TIMEOUT_S = 20.0
"""How long a live leader gets for its ballot, fetching what it lacks included."""
MAX_BALLOT = 10_000


class AgreementState(enum.Enum):
    """Where this peer stands in the instance."""

    OPEN = "open"
    """Collecting updates; no promise given yet."""
    PROMISED = "promised"
    """Closed; waiting for a proposal (or, as the ballot's leader, for promises)."""
    FETCHING = "fetching"
    """A proposal is here but not all of its updates."""
    ACCEPTED = "accepted"
    """Accepted; waiting for the others' accepts."""
    DECIDED = "decided"


@dataclass(frozen=True, slots=True)
class Want:
    """These updates are needed to go on; whoever listed them has them."""

    updates: tuple[UpdateRef, ...]
    holders: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class Decided:
    """The round's outcome, with the proof."""

    certificate: Certificate


def set_that_follows(
    promises_by_peer: Mapping[PeerId, Promise], needed_updates: int = 1
) -> Outcome:
    """The outcome that a leader must propose after these promises.

    The highest ballot's accepted outcome, if any; else what half of the promises or more list: a
    majority, and in ties and pairs the union. Where that is nothing, or fewer than
    ``needed_updates``, so that the swarm's rule could do nothing with it, those who promised go on
    with the state as it is: without a roster nobody could agree on anything ever after.
    """
    promises = list(promises_by_peer.values())
    accepted = [
        (promise.accepted_ballot, promise.accepted)
        for promise in promises
        if promise.accepted is not None
        and promise.accepted_ballot > NO_BALLOT
        # Only a liar says that it accepted too few; what others have accepted counts all the same.
        and not 0 < len(promise.accepted.updates) < needed_updates
    ]
    if accepted:
        _, outcome = max(accepted, key=lambda pair: pair[0])
        return outcome
    needed = len(promises) / 2
    held = Counter(ref for promise in promises for ref in set(promise.held))
    new = Counter(key for promise in promises for key in set(promise.newcomers))
    chosen = sorted(ref for ref, count in held.items() if count >= needed)
    signers = Counter(ref.signer for ref in chosen)
    updates = tuple(ref for ref in chosen if signers[ref.signer] == 1)
    if len(updates) < needed_updates:
        updates = ()
    contributors = {ref.signer for ref in updates}
    newcomers = {key for key, count in new.items() if count >= needed} - contributors
    if not updates:
        newcomers |= {public_key_of(peer) for peer in promises_by_peer}
    return Outcome(updates=updates, newcomers=tuple(sorted(newcomers)))


class RoundAgreement:
    """One peer's part in one round's agreement."""

    def __init__(
        self,
        me: PeerId,
        *,
        round_number: int,
        base: bytes,
        roster: frozenset[PeerId],
        open_agreement: Callable[[bytes], VerifiedMessage],
        needed_updates: int = 1,
    ) -> None:
        """``open_agreement`` opens an envelope of domain ``agreement`` for this swarm;
        ``needed_updates``: how many the swarm's rule needs to do anything."""
        self.round = round_number
        self.base = base
        self.roster = roster
        self.state = AgreementState.OPEN
        self._me = me
        self._open = open_agreement
        self._needed_updates = needed_updates
        self._order = sorted(
            roster,
            key=lambda peer: hashlib.sha256(
                round_number.to_bytes(8, "big") + base + public_key_of(peer)
            ).digest(),
        )
        self._live: frozenset[PeerId] = roster
        self._held: frozenset[UpdateRef] = frozenset()
        self._newcomers: frozenset[PeerId] = frozenset()
        self._ballot = 0
        self._ballot_since = 0.0
        self._patient_until: float | None = None
        """While set, a leader with a quorum of promises waits for more."""
        self._has_been_patient = False
        self._promises: dict[PeerId, tuple[Promise, bytes]] = {}
        self._proposal: Proposal | None = None
        self._proposal_signers: frozenset[PeerId] = frozenset()
        self._accepted_ballot = NO_BALLOT
        self._accepted: Outcome | None = None
        self._accepts: dict[PeerId, tuple[Accept, bytes]] = {}
        self._outbox: list[AgreementMessage] = []
        self._events: list[Want | Decided] = []
        self._wanted: tuple[UpdateRef, ...] = ()

    # What goes in

    def set_live(self, live: frozenset[PeerId], now: float) -> None:
        """Who of the roster can answer at the moment; this peer itself always can."""
        live = (live & self.roster) | ({self._me} & self.roster)
        if live != self._live:
            self._live = live
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
            self.state = AgreementState.PROMISED
            self._enter_ballot(self._ballot, now)
            self._advance(now)

    def receive(self, message: VerifiedMessage, now: float) -> None:
        """Take a signed message in. Raises :class:`RemoteProtocolError` for a foul one."""
        content = decode(message.payload, AgreementMessage)
        if content.round != self.round or content.base != self.base:
            raise VerificationError(
                f"agreement on round {content.round}, at {self.round}, from {message.signer}"
            )
        if message.signer not in self.roster:
            raise VerificationError(f"{message.signer} is not in the roster of round {self.round}")
        match content:
            case Promise():
                self._take_promise(message.signer, content, message.raw)
            case Proposal():
                self._take_proposal(message.signer, content)
            case Accept():
                known = self._accepts.get(message.signer)
                if known is None or content.ballot > known[0].ballot:
                    self._accepts[message.signer] = (content, message.raw)
            case _:
                raise VerificationError(
                    f"{type(content).__name__} in a round, from {message.signer}"
                )
        self._advance(now)

    def receive_certificate(self, certificate: Certificate, now: float) -> None:
        """Adopt what others decided, if it has the votes that a decision takes as this peer sees
        it. Others may see fewer that live, and need fewer: that is nobody's fault.

        Raises :class:`VerificationError` when it is no proof of anything.
        """
        if self.state is AgreementState.DECIDED:
            return
        if certificate.round != self.round or certificate.base != self.base:
            raise VerificationError(f"certificate of round {certificate.round}, at {self.round}")
        signers = certificate_signers(certificate, self._open) & self.roster
        if not signers:
            raise VerificationError(f"certificate of round {self.round} without a vote")
        if self._is_quorum(signers):
            self._decide(certificate)

    # What comes out

    @property
    def listed(self) -> frozenset[PeerId]:
        """Whose updates those hold who have promised."""
        return frozenset(
            peer_id_of(ref.signer) for promise, _ in self._promises.values() for ref in promise.held
        )

    def messages_to_send(self) -> list[AgreementMessage]:
        """Messages to sign and send to everyone; signed copies also go to :meth:`receive`."""
        out, self._outbox = self._outbox, []
        return out

    def next_event(self) -> Want | Decided | None:
        """The next thing to act on."""
        return self._events.pop(0) if self._events else None

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` wants to be called."""
        if self.state in (AgreementState.OPEN, AgreementState.DECIDED):
            return None
        deadline = self._ballot_since + BALLOT_TIMEOUT_S
        return deadline if self._patient_until is None else min(deadline, self._patient_until)

    def handle_timer(self, now: float) -> None:
        """Time has passed."""
        if self.state in (AgreementState.OPEN, AgreementState.DECIDED):
            return
        if self._patient_until is not None and now >= self._patient_until:
            self._patient_until = None
            self._has_been_patient = True
        if now >= self._ballot_since + BALLOT_TIMEOUT_S:
            self._enter_ballot(self._ballot + 1, now)
        self._advance(now)

    # Inside

    def _leader(self, ballot: int) -> PeerId:
        return self._order[ballot % len(self._order)]

    def _is_quorum(self, peers: Iterable[PeerId]) -> bool:
        count = len(set(peers) & self.roster)
        if 2 * len(self._live) > len(self.roster):
            return 2 * count > len(self.roster)
        return 2 * len(set(peers) & self._live) > len(self._live)

    def _take_promise(self, signer: PeerId, promise: Promise, raw: bytes) -> None:
        if not 0 <= promise.ballot <= MAX_BALLOT:
            raise VerificationError(f"ballot {promise.ballot} from {signer}")
        if (promise.accepted is None) != (promise.accepted_ballot == NO_BALLOT):
            raise VerificationError(f"promise that contradicts itself from {signer}")
        known = self._promises.get(signer)
        if known is None or promise.ballot >= known[0].ballot:
            self._promises[signer] = (promise, raw)

    def _take_proposal(self, signer: PeerId, proposal: Proposal) -> None:
        if signer != self._leader(proposal.ballot):
            raise VerificationError(f"{signer} does not lead ballot {proposal.ballot}")
        if proposal.ballot < self._ballot or (
            self._proposal is not None and proposal.ballot <= self._proposal.ballot
        ):
            return
        promises: dict[PeerId, Promise] = {}
        for raw in proposal.promises:
            message = self._open(raw)
            promise = decode(message.payload, AgreementMessage)
            if (
                not isinstance(promise, Promise)
                or (promise.round, promise.base) != (self.round, self.base)
                or promise.ballot != proposal.ballot
                or message.signer not in self.roster
            ):
                raise VerificationError(f"proposal with a foreign promise from {signer}")
            promises[message.signer] = promise
        if not promises or set_that_follows(promises, self._needed_updates) != proposal.outcome:
            raise VerificationError(f"proposal that its promises do not lead to, from {signer}")
        self._ballot = proposal.ballot
        self._proposal = proposal
        self._proposal_signers = frozenset(promises)
        self._wanted = ()
        if self.state is not AgreementState.DECIDED:
            self.state = AgreementState.FETCHING

    def _enter_ballot(self, ballot: int, now: float) -> None:
        """Promise to take part in ``ballot`` and in none before it."""
        if ballot > MAX_BALLOT:
            return
        self._ballot = ballot
        self._ballot_since = now
        self._patient_until = None
        self._has_been_patient = False
        self._proposal = None
        self._wanted = ()
        self.state = AgreementState.PROMISED
        if self._me not in self.roster:
            return
        self._outbox.append(
            Promise(
                round=self.round,
                base=self.base,
                ballot=ballot,
                held=tuple(sorted(self._held)),
                newcomers=tuple(sorted(public_key_of(peer) for peer in self._newcomers)),
                accepted_ballot=self._accepted_ballot,
                accepted=self._accepted,
            )
        )

    def _promises_at(self, ballot: int) -> dict[PeerId, tuple[Promise, bytes]]:
        return {peer: pair for peer, pair in self._promises.items() if pair[0].ballot == ballot}

    def _advance(self, now: float) -> None:
        """Do whatever the present knowledge allows."""
        if self.state is AgreementState.DECIDED or self._tally() or self._me not in self.roster:
            return
        if self.state is AgreementState.OPEN:
            if not self._is_quorum(self._promises):
                return
            self._enter_ballot(self._ballot, now)
        highest = max((promise.ballot for promise, _ in self._promises.values()), default=0)
        ballot = max(highest, self._ballot)
        while self._leader(ballot) not in self._live:
            ballot += 1
        if ballot > self._ballot:
            self._enter_ballot(ballot, now)
        if self._proposal is not None:
            self._consider(self._proposal)
        elif self._leader(self._ballot) == self._me:
            self._lead(now)

    def _lead(self, now: float) -> None:
        promises = self._promises_at(self._ballot)
        if self._me not in promises or not self._is_quorum(promises):
            return
        if not self._live <= promises.keys() and not self._has_been_patient:
            if self._patient_until is None:
                self._patient_until = now + PATIENCE_S
            return
        self._patient_until = None
        alive = {peer: pair for peer, pair in promises.items() if peer in self._live}
        use = alive if self._is_quorum(alive) else promises
        outcome = set_that_follows(
            {peer: promise for peer, (promise, _) in use.items()}, self._needed_updates
        )
        if self._lacks(outcome):
            return
        self._outbox.append(
            Proposal(
                round=self.round,
                base=self.base,
                ballot=self._ballot,
                outcome=outcome,
                promises=tuple(raw for _, raw in use.values()),
            )
        )

    def _lacks(self, outcome: Outcome) -> bool:
        missing = tuple(ref for ref in outcome.updates if ref not in self._held)
        if missing and missing != self._wanted:
            self._wanted = missing
            holders = {
                peer
                for peer, (promise, _) in self._promises.items()
                if set(missing) & set(promise.held)
            }
            self._events.append(Want(missing, tuple(sorted(holders - {self._me}))))
        return bool(missing)

    def _consider(self, proposal: Proposal) -> None:
        if (
            self.state is AgreementState.ACCEPTED
            or not self._is_quorum(self._proposal_signers)
            or self._lacks(proposal.outcome)
        ):
            return
        self.state = AgreementState.ACCEPTED
        self._accepted_ballot = proposal.ballot
        self._accepted = proposal.outcome
        self._outbox.append(
            Accept(
                round=self.round,
                base=self.base,
                ballot=proposal.ballot,
                outcome_digest=proposal.outcome.digest,
            )
        )

    def _tally(self) -> bool:
        """Decide if a quorum has accepted one outcome in one ballot."""
        outcomes = [self._accepted] if self._accepted is not None else []
        if self._proposal is not None:
            outcomes.append(self._proposal.outcome)
        for outcome in outcomes:
            digest = outcome.digest
            for ballot in {accept.ballot for accept, _ in self._accepts.values()}:
                votes = {
                    peer: raw
                    for peer, (accept, raw) in self._accepts.items()
                    if (accept.ballot, accept.outcome_digest) == (ballot, digest)
                }
                if self._is_quorum(votes):
                    self._decide(
                        Certificate(
                            round=self.round,
                            base=self.base,
                            ballot=ballot,
                            outcome=outcome,
                            accepts=tuple(votes[peer] for peer in sorted(votes)),
                        )
                    )
                    return True
        return False

    def _decide(self, certificate: Certificate) -> None:
        self.state = AgreementState.DECIDED
        self._outbox.clear()
        self._events.append(Decided(certificate))


def certificate_signers(
    certificate: Certificate, open_agreement: Callable[[bytes], VerifiedMessage]
) -> frozenset[PeerId]:
    """Who signed accepts of ``certificate``'s outcome.

    Raises :class:`VerificationError` when an accept in it is forged or says something else.
    """
    signers: set[PeerId] = set()
    expected = Accept(
        round=certificate.round,
        base=certificate.base,
        ballot=certificate.ballot,
        outcome_digest=certificate.outcome.digest,
    )
    for raw in certificate.accepts:
        message = open_agreement(raw)
        if decode(message.payload, AgreementMessage) != expected:
            raise VerificationError(f"certificate with a vote for something else, {message.signer}")
        signers.add(message.signer)
    return frozenset(signers)


def next_roster(outcome: Outcome) -> frozenset[PeerId]:
    """Who is expected in the round after the one that ended with ``outcome``."""
    return frozenset(
        peer_id_of(key) for key in (*(ref.signer for ref in outcome.updates), *outcome.newcomers)
    )
