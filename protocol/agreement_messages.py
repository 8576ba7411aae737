"""How a roster agrees on one round's set of updates: single-decree Paxos, one instance a round.

Lamport, "Paxos Made Simple" (2001), with two additions: a promise lists the updates that its signer
holds, so that ballot 0 needs no separate vote about them, and a proposal shows the promises that it
follows from, so that its leader cannot choose the set. Each message is the payload of a signed
envelope of domain ``agreement``.
"""

import hashlib

from protocol.codec import Message, encode

NO_BALLOT = -1
MAX_ROSTER = 1024


class UpdateRef(Message, order=True):
    """One update: its signer's public key, and the SHA-256 of its encoded header."""

    signer: bytes
    digest: bytes


class Outcome(Message):
    """What a round decides: which updates are averaged, and who else is expected next round.

    Both are sorted, so that equal outcomes have equal digests.
    """

    updates: tuple[UpdateRef, ...]
    newcomers: tuple[bytes, ...]

    @property
    def digest(self) -> bytes:
        """SHA-256 over the encoded outcome."""
        return hashlib.sha256(encode(self)).digest()


class Promise(Message, tag="promise"):
    """Phase 1b: the signer closed the round, takes part in ballots from ``ballot`` on, and holds
    these updates; and the outcome that it accepted before, if any."""

    round: int
    base: bytes
    ballot: int
    held: tuple[UpdateRef, ...]
    newcomers: tuple[bytes, ...]
    accepted_ballot: int
    accepted: Outcome | None


class Proposal(Message, tag="proposal"):
    """Phase 2a: the ballot's leader proposes what follows from ``promises`` (signed envelopes)."""

    round: int
    base: bytes
    ballot: int
    outcome: Outcome
    promises: tuple[bytes, ...]


class Accept(Message, tag="accept"):
    """Phase 2b: the signer holds every update of the outcome and accepts it in this ballot."""

    round: int
    base: bytes
    ballot: int
    outcome_digest: bytes


class Start(Message, tag="start"):
    """Proposal to work on from ``base``, the state of ``round``, with this roster.

    For peers that all hold the same state and are in no round: at the beginning, and when a whole
    swarm was restarted. It takes an Accept (ballot 0) from every peer in it.
    """

    round: int
    base: bytes
    outcome: Outcome


AgreementMessage = Promise | Proposal | Accept | Start


class Certificate(Message):
    """Proof that ``outcome`` was decided: the signed Accepts of a quorum, of one ballot.

    ``round`` is the round that it closes and ``base`` the state that it started from; for a Start,
    the round and the state that the swarm works on from.
    """

    round: int
    base: bytes
    ballot: int
    outcome: Outcome
    accepts: tuple[bytes, ...]
