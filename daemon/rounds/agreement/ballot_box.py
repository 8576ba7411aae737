"""What the members of a roster said in one round, by kind and ballot.

Bounded: of each signer and kind the latest ballots are kept, whatever it sends. Two different
messages of one kind in one ballot are a contradiction; the first counts.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from protocol.envelope import VerifiedMessage
from protocol.identity import PeerId
from protocol.peers.agreement_messages import (
    MAX_ROSTER,
    Accept,
    Outcome,
    Prepare,
    Promise,
    Proposal,
    UpdateRef,
)

KEPT_BALLOTS = 2
"""Ballots kept of each signer and kind; a slow peer may still be in the last one."""

Said = Promise | Proposal | Prepare | Accept
S = TypeVar("S", Promise, Proposal, Prepare, Accept)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A signed message as it came, what it says, and its SHA-256."""

    content: Said
    raw: bytes
    digest: bytes


class BallotBox:
    """The messages of one round's instance."""

    def __init__(self) -> None:
        self._said: dict[type[Said], dict[PeerId, dict[int, Envelope]]] = {
            kind: {} for kind in (Promise, Proposal, Prepare, Accept)
        }
        self._asked_for: frozenset[bytes] = frozenset()
        self._others: dict[bytes, tuple[PeerId, Promise]] = {}
        """Promises that a proposal names, by digest: they count in it whatever else their signers
        told this peer."""

    def add(self, message: VerifiedMessage, content: Said) -> Envelope | None:
        """Keep a message; what it contradicts, if anything."""
        envelope = Envelope(content, message.raw, hashlib.sha256(message.raw).digest())
        if isinstance(content, Promise) and envelope.digest in self._asked_for:
            self._others[envelope.digest] = (message.signer, content)
        by_ballot = self._said[type(content)].setdefault(message.signer, {})
        known = by_ballot.get(content.ballot)
        if known is not None:
            return known if known.content != content else None
        by_ballot[content.ballot] = envelope
        while len(by_ballot) > KEPT_BALLOTS:
            del by_ballot[min(by_ballot)]
        return None

    def at(self, kind: type[S], ballot: int) -> dict[PeerId, S]:
        """The messages of one kind in one ballot, by signer."""
        return {
            signer: envelope.content
            for signer, by_ballot in self._said[kind].items()
            if (envelope := by_ballot.get(ballot)) is not None
            and isinstance(envelope.content, kind)
        }

    def envelopes(self, kind: type[Said], ballot: int) -> dict[PeerId, Envelope]:
        """The messages of one kind in one ballot with their signed bytes, by signer."""
        return {
            signer: by_ballot[ballot]
            for signer, by_ballot in self._said[kind].items()
            if ballot in by_ballot
        }

    def ballots(self, kind: type[Said]) -> dict[PeerId, int]:
        """The latest ballot of each signer."""
        return {signer: max(by_ballot) for signer, by_ballot in self._said[kind].items()}

    def promises_from(self, ballot: int) -> dict[PeerId, bytes]:
        """Everybody's latest promise, of this ballot or a later one, by signer."""
        return {
            signer: by_ballot[latest].raw
            for signer, by_ballot in self._said[Promise].items()
            if (latest := max(by_ballot)) >= ballot
        }

    def promises_named(
        self, digests: tuple[bytes, ...], ballot: int
    ) -> dict[bytes, tuple[PeerId, Promise]]:
        """Those of these promises that are here, by digest, with their signers; the others are
        remembered as asked for."""
        self._asked_for = frozenset(digests[:MAX_ROSTER])
        self._others = {
            digest: pair for digest, pair in self._others.items() if digest in self._asked_for
        }
        found = {
            digest: (signer, promise)
            for digest, (signer, promise) in self._others.items()
            if promise.ballot == ballot
        }
        for signer, envelope in self.envelopes(Promise, ballot).items():
            if envelope.digest in self._asked_for and isinstance(envelope.content, Promise):
                found[envelope.digest] = (signer, envelope.content)
        return found

    def find(self, digest: bytes) -> bytes | None:
        """The signed promise with this digest."""
        return next((one.raw for _, one in self._each(Promise) if one.digest == digest), None)

    def prepares(self, ballot: int, digest: bytes) -> dict[PeerId, bytes]:
        """Who voted for that outcome in that ballot, with the votes."""
        return {
            peer: one.raw
            for peer, one in self.envelopes(Prepare, ballot).items()
            if isinstance(one.content, Prepare) and one.content.outcome_digest == digest
        }

    def accepts(self) -> list[tuple[int, bytes, dict[PeerId, bytes]]]:
        """Ballots and outcomes that were accepted, by whom, with the votes."""
        found: dict[tuple[int, bytes], dict[PeerId, bytes]] = {}
        for signer, one in self._each(Accept):
            if isinstance(one.content, Accept):
                key = (one.content.ballot, one.content.outcome_digest)
                found.setdefault(key, {})[signer] = one.raw
        return [(ballot, digest, votes) for (ballot, digest), votes in found.items()]

    def proposed(self, digest: bytes) -> Outcome | None:
        """The outcome with this digest, if a leader proposed it."""
        for _, one in self._each(Proposal):
            if isinstance(one.content, Proposal) and one.content.outcome.digest == digest:
                return one.content.outcome
        return None

    def holders(self, refs: Iterable[UpdateRef]) -> frozenset[PeerId]:
        """Who says that it holds any of these updates."""
        wanted = set(refs)
        return frozenset(
            signer
            for signer, one in self._each(Promise)
            if isinstance(one.content, Promise) and not wanted.isdisjoint(one.content.held)
        )

    def listed(self) -> dict[UpdateRef, set[PeerId]]:
        """The updates that somebody says to hold, and who does."""
        holders: dict[UpdateRef, set[PeerId]] = {}
        for signer, one in self._each(Promise):
            if isinstance(one.content, Promise):
                for ref in one.content.held:
                    holders.setdefault(ref, set()).add(signer)
        return holders

    def _each(self, kind: type[Said]) -> Iterator[tuple[PeerId, Envelope]]:
        for signer, by_ballot in self._said[kind].items():
            for envelope in by_ballot.values():
                yield signer, envelope
