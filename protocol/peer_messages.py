"""What two peers of a swarm say to each other over a session."""

from protocol.agreement_messages import Certificate
from protocol.codec import Message

MAX_REQUEST_CHUNKS = 16
NO_STATE = b""


class Standing(Message, tag="standing"):
    """Where the sender stands; sent every second and whenever it changes."""

    round: int
    """The last complete round, whose state it holds."""
    base: bytes
    """Merkle root of that state."""
    contributors: int
    """How many updates that round had."""
    started: bool
    """Whether it is in a round now, rather than gathering peers for one."""
    ready: bool
    """Whether it can train: worker up, state loaded, not paused."""


class UpdateHeader(Message):
    """The signed part of an update: the payload of an envelope of domain ``update``."""

    round: int
    base: bytes
    root: bytes
    """Merkle root over the update's chunks."""
    size_bytes: int
    sample_count: int
    loss: float
    part: int = 0
    """Which part of the model it is about, of ``parts``; an update in mesh or gossip has one."""
    parts: int = 1
    reduced: bool = False
    """True: not one peer's contribution but the owner's average of all that it got for its part."""


class UpdateOffer(Message, tag="update_offer"):
    """An update that the sender has whole, its own or another's."""

    header: bytes
    """Signed envelope of an UpdateHeader."""
    leaves: tuple[bytes, ...]
    proof: bytes
    """The update's signer's admission proof, for those who do not know it."""


class UpdateRequest(Message, tag="update_request"):
    """Please offer these updates (SHA-256 of their encoded headers)."""

    digests: tuple[bytes, ...]


class ChunkRequest(Message, tag="chunk_request"):
    """Please send these chunks of a blob."""

    root: bytes
    indexes: tuple[int, ...]


class ChunkMissing(Message, tag="chunk_missing"):
    """The sender does not have this blob (any more)."""

    root: bytes


class Agreement(Message, tag="agreement"):
    """A signed AgreementMessage (protocol/agreement_messages.py)."""

    envelope: bytes


class CertificateRequest(Message, tag="certificate_request"):
    """How did the round that started from ``base`` end?"""

    round: int
    base: bytes


class CertificateReply(Message, tag="certificate"):
    """It ended so."""

    certificate: Certificate


class StateRequest(Message, tag="state_request"):
    """Which state do you hold? The asker holds ``base`` of ``round``."""

    round: int
    base: bytes


class StateOffer(Message, tag="state_offer"):
    """The state that the sender holds, whole."""

    round: int
    root: bytes
    size_bytes: int
    leaves: tuple[bytes, ...]
    certificate: Certificate | None
    """How the round that made it ended; the next roster follows from it. None in gossip, and for
    round 0's state while nobody has started."""
    descends: bool
    """Whether the asker's state is one that the sender's came from."""


class StatementOffer(Message, tag="statement_offer"):
    """A signed swarm statement."""

    statement: bytes


PeerMessage = (
    Standing
    | UpdateOffer
    | UpdateRequest
    | ChunkRequest
    | ChunkMissing
    | Agreement
    | CertificateRequest
    | CertificateReply
    | StateRequest
    | StateOffer
    | StatementOffer
)
