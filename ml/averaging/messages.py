"""What the daemon and the averager say to each other over their socket.

The daemon asks, the averager answers each request by its number (p2pd/channel.py); :class:`Working`
and :class:`TrialWanted` come unasked. Model bytes never pass through here: they lie in files,
described by :class:`ml.state.blob.Blob`, or in shared memory. This module imports no NumPy, so the
daemon may import it. docs/processes.md says who says what when.

>>> from protocol.codec import decode, encode
>>> request = decode(encode(CheckUpdate(1, "spool/update", part=0, parts=2)), AveragerRequest)
>>> request.path, request.reply_kind()
('spool/update', <class 'ml.averaging.messages.Finished'>)
"""

from ml.state.blob import KEPT_CHECKPOINTS, Blob
from ml.state.manifest import Manifest
from protocol.codec import Message
from protocol.metric import MetricValue
from protocol.statements.swarm import RoundSettings


class OpenStates(Message, tag="open_states"):
    """Hold the last complete checkpoint, or round 0's state, and put it into the base memory."""

    manifest: Manifest
    tied: dict[str, str]
    """Every further name of a tied tensor, and the manifest's name of it: for exports."""
    settings: RoundSettings
    state_dir: str
    """Directory for ``checkpoints/`` and ``spool/``; the averager makes both."""
    metadata: dict[str, str]
    """What exported models say of where they come from."""
    kept_checkpoints: int = KEPT_CHECKPOINTS
    """How many of the last rounds' states stay on disk."""
    checkpoint_bytes: int = 0
    """What they may take of the disk together; 0: no limit."""
    event_dir: str = ""
    """The directory of event files for TensorBoard; empty: none are written."""
    has_initial: bool = True
    """Whether the local memory holds round 0's tensors. Where it does not, and there is no
    checkpoint, this fails as :data:`NO_STATE`."""

    def reply_kind(self) -> "type[StatesOpened]":
        """What answers it."""
        return StatesOpened


class FindUpdate(Message, tag="find_update"):
    """Look for this peer's update of ``round`` in ``parts`` that was written before a restart."""

    round: int
    parts: int

    def reply_kind(self) -> "type[UpdateFound]":
        """What answers it; without parts where one of them is not there."""
        return UpdateFound


class WriteUpdate(Message, tag="write_update"):
    """Make one part of this peer's update of ``round`` out of the local memory.

    Part j is about the elements from P·j//parts on of the P elements of all tensors in the
    manifest's order. One that was written before a restart is not made again.
    """

    round: int
    part: int
    parts: int
    sample_count: int
    steps: int
    loss: float
    seconds: float
    samples_per_second: float
    from_origin: bool
    """Whether the training began at what the origin memory holds, not at the base."""

    def reply_kind(self) -> "type[PartWritten]":
        """What answers it."""
        return PartWritten


class CheckUpdate(Message, tag="check_update"):
    """Check the file of an update of ``round`` against the manifest, before anything of it is
    believed."""

    round: int
    path: str
    part: int = 0
    parts: int = 1

    def reply_kind(self) -> "type[Finished]":
        """What answers it."""
        return Finished


class Contribution(Message):
    """One committed update."""

    peer_id: str
    path: str
    sample_count: int


class Apply(Message, tag="apply"):
    """Aggregate committed updates, take the outer step, checkpoint.

    An empty tuple of contributions carries the state over to the next round unchanged.
    """

    round: int
    contributions: tuple[Contribution, ...]

    def reply_kind(self) -> "type[Adopted]":
        """What answers it."""
        return Adopted


class Reduce(Message, tag="reduce"):
    """Average what peers contributed to one part, weighted by samples, and encode the result."""

    round: int
    part: int
    parts: int
    contributions: tuple[Contribution, ...]

    def reply_kind(self) -> "type[Reduced]":
        """What answers it."""
        return Reduced


class PartResult(Message):
    """The average of one part, as its owner encoded it."""

    part: int
    path: str


class ApplyParts(Message, tag="apply_parts"):
    """Take the outer step with averaged parts, checkpoint. Elements of parts that are lacking stay
    as they are, their momentum too."""

    round: int
    parts: int
    results: tuple[PartResult, ...]

    def reply_kind(self) -> "type[Adopted]":
        """What answers it."""
        return Adopted


class Neighbour(Message):
    """A partner's parameters, and their weight next to this peer's."""

    peer_id: str
    path: str
    weight: float


class Mix(Message, tag="mix"):
    """Gossip: move from this peer's parameters (in ``own_path``) towards the neighbours',
    checkpoint."""

    round: int
    own_path: str
    neighbours: tuple[Neighbour, ...]

    def reply_kind(self) -> "type[Adopted]":
        """What answers it."""
        return Adopted


class LoadState(Message, tag="load_state"):
    """Take a swarm's state of ``round`` from a file that was fetched from peers."""

    round: int
    path: str
    root: bytes

    def reply_kind(self) -> "type[Adopted]":
        """What answers it."""
        return Adopted


class NoteState(Message, tag="note_state"):
    """How good the trainer found the state that a round ended in: for the journal. It may come
    after the next round has ended."""

    round: int
    loss: float
    metrics: tuple[MetricValue, ...]

    def reply_kind(self) -> "type[Noted]":
        """What answers it."""
        return Noted


class NoteTraffic(Message, tag="note_traffic"):
    """What went to and came from other peers in the round whose state is held now."""

    round: int
    bytes_sent: int
    bytes_received: int

    def reply_kind(self) -> "type[Noted]":
        """What answers it."""
        return Noted


class Export(Message, tag="export"):
    """Write an averaged model as plain safetensors, with metadata."""

    path: str
    round: int | None = None
    """One of those whose checkpoints are kept; None: the current one."""

    def reply_kind(self) -> "type[Exported]":
        """What answers it."""
        return Exported


class TrialLosses(Message, tag="trial_losses"):
    """What a trial came to that the averager wanted; it goes on with what asked for it."""

    losses: tuple[float, ...]
    """Empty where the trainer could not try."""
    problem: str = ""
    """Why it could not."""

    def reply_kind(self) -> "type[Finished]":
        """What answers it, at once."""
        return Finished


class Shutdown(Message, tag="shutdown"):
    """End the process after answering."""

    def reply_kind(self) -> "type[Finished]":
        """What answers it, at once."""
        return Finished


AveragerRequest = (
    OpenStates
    | FindUpdate
    | WriteUpdate
    | CheckUpdate
    | Apply
    | Reduce
    | ApplyParts
    | Mix
    | LoadState
    | NoteState
    | NoteTraffic
    | Export
    | TrialLosses
    | Shutdown
)


class StatesOpened(Message, tag="states_opened"):
    """The averager holds a state, and so does the base memory."""

    round: int
    """0, or that of the checkpoint."""
    state: Blob
    initial_root: bytes
    """Merkle root of round 0's state as this machine makes it; empty where that was not there."""
    max_update_bytes: int
    """No valid update of this model in the swarm's encoding is larger."""
    max_state_bytes: int
    sandbox: str = ""
    """What keeps the averager in, in words."""


class PartWritten(Message, tag="part_written"):
    """One part of this peer's update is written, and what training is behind it."""

    update: Blob
    sample_count: int
    steps: int
    loss: float
    seconds: float


class UpdateFound(Message, tag="update_found"):
    """What is there of this peer's update."""

    base_root: bytes
    """The root of the state that it begins from."""
    parts: tuple[PartWritten, ...] = ()
    """All of them, in their order; none: no such update was found."""
    from_origin: bool = False
    """Whether training begins at what the origin memory holds, not at the base."""


class Reduced(Message, tag="reduced"):
    """A part is averaged."""

    update: Blob
    sample_count: int
    """The samples of all contributions together."""


class Adopted(Message, tag="adopted"):
    """The averager now holds ``round``'s state, and so does the base memory."""

    round: int
    state: Blob
    checkpoint_problem: str = ""
    """Why this state is in memory only, such as a full disk; empty when it is on disk."""
    event_problem: str = ""
    """As in :class:`Noted`."""


class Noted(Message, tag="noted"):
    """It stands in the journal."""

    event_problem: str = ""
    """Why nothing more comes into the event files; empty while it does, or nobody asked for it."""


class Exported(Message, tag="exported"):
    """The file is written, whole."""

    round: int
    size_bytes: int


class Finished(Message, tag="finished"):
    """Done, nothing to tell."""


class Failed(Message, tag="failed"):
    """Could not be done. The averager lives and holds what it held before."""

    kind: str
    """``config`` (the operator can fix it), ``rejected`` (the bytes are bad), ``no_state``,
    ``internal``."""
    text: str


class Working(Message, tag="working"):
    """A block of a model was worked on. At most about once a second."""


class TrialWanted(Message, tag="trial_wanted"):
    """The base memory holds parameters to try; :class:`TrialLosses` is waited for."""

    round: int
    """The round of the state that this round began from."""


AveragerReply = (
    StatesOpened
    | UpdateFound
    | PartWritten
    | Reduced
    | Adopted
    | Noted
    | Exported
    | Finished
    | Failed
)
FromAverager = AveragerReply | Working | TrialWanted
