"""Members of a roster that lie together: they share their keys, hear everything that anybody says,
and send whatever they can sign, to whom they like."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from daemon.rounds.agreement.proposing import set_that_follows
from protocol.codec import decode
from protocol.envelope import VerifiedMessage
from protocol.identity import Identity, PeerId
from protocol.peers.agreement_messages import (
    Accept,
    AgreementMessage,
    Outcome,
    Prepare,
    Prepared,
    Promise,
    Proposal,
    UpdateRef,
)

KINDS = ("promise", "proposal", "prepare", "accept", "replay", "follow")


class Liars:
    """What some members know, and what they make of it."""

    def __init__(
        self,
        identities: Sequence[Identity],
        *,
        round_number: int,
        base: bytes,
        roster_size: int,
        seal: Callable[[Identity, AgreementMessage], bytes],
        leader_of: Callable[[int], PeerId],
    ) -> None:
        self.identities = identities
        self._round = round_number
        self._base = base
        self._roster_size = roster_size
        self._seal = seal
        self._leader_of = leader_of
        self._heard: list[bytes] = []
        self._promises: dict[int, dict[bytes, tuple[PeerId, Promise]]] = {}
        self._prepares: dict[tuple[int, bytes], dict[PeerId, bytes]] = {}
        self.outcomes: list[Outcome] = [Outcome(updates=(), newcomers=())]
        self.ballot = 0
        """The latest that anybody spoke of."""

    def hear(self, message: VerifiedMessage) -> None:
        """Everything that is said comes to their ears."""
        content = decode(message.payload, AgreementMessage)
        self._heard.append(message.raw)
        if not isinstance(content, Promise | Proposal | Prepare | Accept):
            return
        self.ballot = max(self.ballot, content.ballot)
        match content:
            case Promise():
                digest = hashlib.sha256(message.raw).digest()
                self._promises.setdefault(content.ballot, {})[digest] = (message.signer, content)
            case Proposal():
                self._learn(content.outcome)
            case Prepare():
                key = (content.ballot, content.outcome_digest)
                self._prepares.setdefault(key, {})[message.signer] = message.raw

    def envelope(self, digest: bytes) -> bytes | None:
        """A promise that a proposal of theirs named."""
        return next((raw for raw in self._heard if hashlib.sha256(raw).digest() == digest), None)

    def say(
        self, kind: str, who: int, ballot: int, choice: int, refs: Iterable[UpdateRef]
    ) -> bytes | None:
        """A signed message of some kind; ``choice`` picks among what can be said."""
        liar = self.identities[who % len(self.identities)]
        at: dict[str, Any] = {"round": self._round, "base": self._base, "ballot": ballot}
        match kind:
            case "promise":
                raw = self._seal(
                    liar,
                    Promise(
                        **at,
                        held=tuple(sorted(refs)),
                        newcomers=(),
                        prepared=self._claim(ballot, choice),
                    ),
                )
            case "proposal" | "follow":
                if self._leader_of(ballot) != liar.peer_id:
                    return None
                named = self._choose(ballot, choice)
                outcome = self.outcomes[choice % len(self.outcomes)]
                if kind == "follow" and named:
                    outcome = set_that_follows(dict(named.values()))
                    self._learn(outcome)
                raw = self._seal(
                    liar, Proposal(**at, outcome=outcome, promises=tuple(sorted(named)))
                )
            case "prepare":
                digest = self.outcomes[choice % len(self.outcomes)].digest
                raw = self._seal(liar, Prepare(**at, outcome_digest=digest))
            case "accept":
                digest = self.outcomes[choice % len(self.outcomes)].digest
                raw = self._seal(
                    liar, Accept(**at, outcome_digest=digest, roster_size=self._roster_size)
                )
            case _:
                return self._heard[choice % len(self._heard)] if self._heard else None
        return raw

    def split(self, ballot: int, choice: int) -> list[tuple[bytes, ...]]:
        """Two proposals of one ballot that both follow, each with the votes of all of them."""
        leader = next(
            (one for one in self.identities if one.peer_id == self._leader_of(ballot)), None
        )
        at: dict[str, Any] = {"round": self._round, "base": self._base, "ballot": ballot}
        sides = []
        for which in (choice, choice + 1):
            named = self._choose(ballot, which)
            if leader is not None and named:
                outcome = set_that_follows(dict(named.values()))
                self._learn(outcome)
                votes: list[AgreementMessage] = [
                    Prepare(**at, outcome_digest=outcome.digest),
                    Accept(**at, outcome_digest=outcome.digest, roster_size=self._roster_size),
                ]
                proposal = Proposal(**at, outcome=outcome, promises=tuple(sorted(named)))
                sides.append(
                    (
                        self._seal(leader, proposal),
                        *(self._seal(one, vote) for one in self.identities for vote in votes),
                    )
                )
        return sides

    def _learn(self, outcome: Outcome) -> None:
        if outcome not in self.outcomes:
            self.outcomes.append(outcome)

    def _choose(self, ballot: int, choice: int) -> dict[bytes, tuple[PeerId, Promise]]:
        """Some of the promises of a ballot, at most one of each signer."""
        by_signer: dict[PeerId, tuple[bytes, Promise]] = {}
        found = list(self._promises.get(ballot, {}).items())
        for number, (digest, (signer, promise)) in enumerate(found):
            if signer not in by_signer or choice >> number & 1:
                by_signer[signer] = (digest, promise)
        left_out = choice % (len(by_signer) + 1)
        kept = [pair for number, pair in enumerate(by_signer.items()) if number != left_out]
        return {digest: (signer, promise) for signer, (digest, promise) in kept}

    def _claim(self, ballot: int, choice: int) -> Prepared | None:
        """Something that was prepared, proven by what was heard and what they sign themselves."""
        if ballot == 0 or choice % 3 == 0:
            return None
        claimed = choice % ballot
        outcome = self.outcomes[choice // 3 % len(self.outcomes)]
        vote = Prepare(
            round=self._round, base=self._base, ballot=claimed, outcome_digest=outcome.digest
        )
        votes = dict(self._prepares.get((claimed, outcome.digest), {}))
        for liar in self.identities:
            votes.setdefault(liar.peer_id, self._seal(liar, vote))
        return Prepared(
            ballot=claimed, outcome=outcome, votes=tuple(votes[peer] for peer in sorted(votes))
        )
