"""How a roster agrees on one round's set of updates although some of it lie; one instance a round.

PBFT for a single decision (Castro and Liskov, "Practical Byzantine Fault Tolerance", 1999), with
two additions: a promise lists the updates that its signer holds, so that nobody has to propose a
set of its own, and a proposal names the promises that it follows from, so that its leader cannot
choose it. Each message is the payload of a signed envelope of domain ``agreement``.

A decoded message is whole and bounded: keys and digests have 32 bytes, lists are sorted, without
doubles and no longer than a roster, ballots and rounds have an upper end. So the largest message
fits a frame, and nobody behind the decoder has to look again.

>>> alice, bob = bytes([1] * KEY_BYTES), bytes([2] * KEY_BYTES)
>>> outcome = Outcome(updates=(UpdateRef(alice, bytes(DIGEST_BYTES)),), newcomers=(bob,))
>>> len(outcome.digest)
32
>>> Outcome(updates=(), newcomers=(bob, alice))
Traceback (most recent call last):
ValueError: newcomers are not sorted, or not without doubles
"""

import hashlib
import itertools
from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta

from protocol.codec import Message, encode
from protocol.identity import KEY_BYTES

MAX_ROSTER = 1024
MAX_LAST = 512
"""Of those who lead last at most so many are named."""
MAX_BALLOT = 1_000_000
"""The last ballot. A ballot lasts two seconds at least, even with liars: reaching it takes
weeks."""
MAX_ROUND = 1 << 48
DIGEST_BYTES = 32
MAX_VOTE_BYTES = 512
"""A Prepare or an Accept in its envelope takes less than 300."""

Key = Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Round = Annotated[int, Meta(ge=0, le=MAX_ROUND)]
Ballot = Annotated[int, Meta(ge=0, le=MAX_BALLOT)]
RosterSize = Annotated[int, Meta(ge=0, le=MAX_ROSTER)]
Vote = Annotated[bytes, Meta(max_length=MAX_VOTE_BYTES)]
Keys = Annotated[tuple[Key, ...], Meta(max_length=MAX_ROSTER)]
LastKeys = Annotated[tuple[Key, ...], Meta(max_length=MAX_LAST)]
Digests = Annotated[tuple[Digest, ...], Meta(max_length=MAX_ROSTER)]
Votes = Annotated[tuple[Vote, ...], Meta(max_length=MAX_ROSTER)]


class UpdateRef(Message, order=True):
    """One update: its signer's public key, and the SHA-256 of its encoded header."""

    signer: Key
    digest: Digest


UpdateRefs = Annotated[tuple[UpdateRef, ...], Meta(max_length=MAX_ROSTER)]


def _check_sorted(what: str, items: Sequence[Any]) -> None:
    # A ValueError here is a refused message to whoever decodes it (msgspec).
    if any(left >= right for left, right in itertools.pairwise(items)):
        raise ValueError(f"{what} are not sorted, or not without doubles")


class Outcome(Message):
    """What a round decides: which updates are averaged, who else is expected next round, and who
    leads last then.

    All are sorted, so that equal outcomes have equal digests.
    """

    updates: UpdateRefs
    newcomers: Keys
    last_to_lead: LastKeys = ()

    def __post_init__(self) -> None:
        _check_sorted("updates", self.updates)
        _check_sorted("newcomers", self.newcomers)
        _check_sorted("last to lead", self.last_to_lead)
        if len({ref.signer for ref in self.updates}) < len(self.updates):
            raise ValueError("two updates of one peer in one outcome")
        if len(self.updates) + len(self.newcomers) > MAX_ROSTER:
            raise ValueError(f"an outcome names more than {MAX_ROSTER} peers")

    @property
    def digest(self) -> bytes:
        """SHA-256 over the encoded outcome."""
        return hashlib.sha256(encode(self)).digest()


class Prepared(Message):
    """Proof that ``outcome`` was proposed in ``ballot``, and is the only one that can have been
    decided there: the signed Prepares of a quorum."""

    ballot: Ballot
    outcome: Outcome
    votes: Votes


class Promise(Message, tag="promise"):
    """The signer closed the round, takes part in ballots from ``ballot`` on, and holds these
    updates; the last outcome that it saw prepared, if any, with the proof; and who, as it saw, led
    slowly or in vain."""

    round: Round
    base: Digest
    ballot: Ballot
    held: UpdateRefs
    newcomers: Keys
    prepared: Prepared | None
    slow_to_lead: LastKeys = ()

    def __post_init__(self) -> None:
        _check_sorted("held updates", self.held)
        _check_sorted("newcomers", self.newcomers)
        _check_sorted("slow to lead", self.slow_to_lead)


class Proposal(Message, tag="proposal"):
    """The ballot's leader proposes what follows from the promises with these digests (SHA-256 of
    their envelopes). Whoever lacks one asks the leader for it."""

    round: Round
    base: Digest
    ballot: Ballot
    outcome: Outcome
    promises: Digests

    def __post_init__(self) -> None:
        _check_sorted("promises", self.promises)


class Prepare(Message, tag="prepare"):
    """The signer holds every update of the outcome, saw that it follows from a quorum of promises,
    and votes for no other one in this ballot."""

    round: Round
    base: Digest
    ballot: Ballot
    outcome_digest: Digest


class Accept(Message, tag="accept"):
    """The signer saw the Prepares of a quorum for this outcome in this ballot.

    ``roster_size``: how many peers had a vote, so that anybody can tell a weak certificate.
    """

    round: Round
    base: Digest
    ballot: Ballot
    outcome_digest: Digest
    roster_size: RosterSize


class Start(Message, tag="start"):
    """Proposal to work on from ``base``, the state of ``round``, with this roster.

    For peers that all hold the same state and are in no round: at the beginning, and when a whole
    swarm was restarted. It takes an Accept (ballot 0) from every peer in it.
    """

    round: Round
    base: Digest
    outcome: Outcome


AgreementMessage = Promise | Proposal | Prepare | Accept | Start


class Certificate(Message):
    """Proof that ``outcome`` was decided: the signed Accepts of a quorum, of one ballot.

    ``round`` is the round that it closes and ``base`` the state that it started from; for a Start,
    the round and the state that the swarm works on from.
    """

    round: Round
    base: Digest
    ballot: Ballot
    outcome: Outcome
    roster_size: RosterSize
    accepts: Votes

    def __post_init__(self) -> None:
        if self.outcome.updates and self.round == 0:
            raise ValueError("a certificate of round 0 with updates")
