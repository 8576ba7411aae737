"""What two peers of a swarm say to each other over a session.

>>> from protocol.codec import decode, encode
>>> data = encode(ChunkRequest(root=bytes(32), indexes=(0, 1)))
>>> match decode(data, PeerMessage):
...     case ChunkRequest(indexes=indexes):
...         print(f"chunks {indexes} are wanted")
chunks (0, 1) are wanted
"""

from typing import Annotated

from msgspec import Meta

from protocol.codec import Message
from protocol.merkle import MAX_CHUNKS
from protocol.peers.agreement_messages import MAX_ROSTER, Certificate, Digest, Digests, Round, Vote
from protocol.statements.admission import MAX_PROOF_BYTES

MAX_REQUEST_CHUNKS = 16
MAX_FOLLOWING_CHUNKS = 8
"""8 MiB, more than bandwidth times delay of most links: when they are there, the reader has asked
for more."""
MAX_VOUCHES = 256
"""The most vouches in one offer of a state: enough for any count, and the offer still fits a
frame."""

MAX_HEADER_BYTES = 1024
"""An UpdateHeader in its envelope takes less than 400."""

Leaves = Annotated[tuple[Digest, ...], Meta(max_length=MAX_CHUNKS)]
SizeBytes = Annotated[int, Meta(ge=0, le=1 << 48)]
ChunkIndex = Annotated[int, Meta(ge=0, lt=MAX_CHUNKS)]


class Vouch(Message):
    """The signer came to this state: the payload of an envelope of domain ``state``.

    Whoever averaged signs the root that it came to. So a state is vouched for by those who made
    it, and by those who took it and checked it.
    """

    round: Round
    base: Digest


class Standing(Message, tag="standing"):
    """The sender's standing; sent whenever it changes, and now and then."""

    round: Round
    """The last complete round, whose state it holds."""
    base: Digest
    """Merkle root of that state."""
    contributors: Annotated[int, Meta(ge=0, le=MAX_ROSTER)]
    """How many updates that round had."""
    started: bool
    """Whether it is in a round now, rather than gathering peers for one."""
    ready: bool
    """Whether it can train: worker up, state loaded, not paused, its votes stored."""
    vouch: Vote
    """Signed envelope of the Vouch for this state."""
    takes_unasked: bool = False
    """Whether chunks may follow an offer to it unasked; not where it comes by a limit."""


class UpdateHeader(Message):
    """The signed part of an update: the payload of an envelope of domain ``update``."""

    round: Round
    base: Digest
    root: Digest
    """Merkle root over the update's chunks."""
    size_bytes: SizeBytes
    sample_count: int
    loss: float
    part: int = 0
    """The part of the model that it is about, of ``parts``; an update in mesh or gossip has one."""
    parts: int = 1
    reduced: bool = False
    """Whether this is the owner's average of all that it got for its part, not one peer's
    contribution."""


class UpdateOffer(Message, tag="update_offer"):
    """An update that the sender has whole, its own or another's."""

    header: Annotated[bytes, Meta(max_length=MAX_HEADER_BYTES)]
    """Signed envelope of an UpdateHeader."""
    leaves: Leaves
    proof: Annotated[bytes, Meta(max_length=MAX_PROOF_BYTES)]
    """The update's signer's admission proof, for those who do not know it."""
    follows: Annotated[int, Meta(ge=0, le=MAX_FOLLOWING_CHUNKS)] = 0
    """So many of its first chunks the sender sends at once, unasked. Who expects them asks for the
    others: a round trip less for each update, and for a small one two messages."""


class UpdateRequest(Message, tag="update_request"):
    """Please offer these updates (SHA-256 of their encoded headers)."""

    digests: Digests


class ChunkRequest(Message, tag="chunk_request"):
    """Please send these chunks of a blob."""

    root: Digest
    indexes: Annotated[tuple[ChunkIndex, ...], Meta(max_length=MAX_REQUEST_CHUNKS)]


class ChunkMissing(Message, tag="chunk_missing"):
    """The sender does not have this blob (any more)."""

    root: Digest


class Agreement(Message, tag="agreement"):
    """A signed AgreementMessage (protocol/peers/agreement_messages.py)."""

    envelope: bytes


class PromiseRequest(Message, tag="promise_request"):
    """Please send these promises (SHA-256 of their envelopes), which a proposal of yours names."""

    round: Round
    base: Digest
    digests: Digests


class CertificateRequest(Message, tag="certificate_request"):
    """How did the round that started from ``base`` end?"""

    round: Round
    base: Digest


class CertificateReply(Message, tag="certificate"):
    """It ended so."""

    certificate: Certificate


class StateRequest(Message, tag="state_request"):
    """Asks which state the reader holds. The asker holds ``base`` of ``round``."""

    round: Round
    base: Digest


class StateOffer(Message, tag="state_offer"):
    """The state that the sender holds, whole."""

    round: Round
    root: Digest
    size_bytes: SizeBytes
    leaves: Leaves
    certificate: Certificate | None
    """How the round that made it ended; the next roster follows from it. None in gossip, and for
    round 0's state while nobody has started."""
    descends: bool
    """Whether the asker's state is one that the sender's came from."""
    vouches: Annotated[tuple[Vote, ...], Meta(max_length=MAX_VOUCHES)]
    """Signed envelopes of Vouches for exactly this state, the sender's first."""


class StatementOffer(Message, tag="statement_offer"):
    """A signed swarm statement."""

    statement: bytes


class EvaluationOffer(Message, tag="evaluation"):
    """How good the sender found a round's state, where the swarm has one evaluate in turn."""

    evaluation: bytes
    """Signed envelope of an Evaluation (protocol/peers/evaluation.py)."""


PeerMessage = (
    Standing
    | UpdateOffer
    | UpdateRequest
    | ChunkRequest
    | ChunkMissing
    | Agreement
    | PromiseRequest
    | CertificateRequest
    | CertificateReply
    | StateRequest
    | StateOffer
    | StatementOffer
    | EvaluationOffer
)
