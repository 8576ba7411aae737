"""What the daemon and its worker process say to each other over their socketpair.

The daemon asks, the worker answers each request by its number; :class:`Progress` and
:class:`Working` come unasked while work gets on. Model bytes never pass through here: they lie in
files, described by :class:`ml.state.blob.Blob`. This module imports no torch, so the daemon may
import it.
"""

from ml.state.blob import KEPT_CHECKPOINTS, Blob
from ml.task.choice import TaskChoice
from protocol.codec import Message
from protocol.swarm import RoundSettings

MAX_WORKER_MESSAGE_BYTES = 8 << 20
REPORT_INTERVAL_S = 1.0
"""Work that gets on says so at most so often."""


class OpenTask(Message, tag="open_task"):
    """Load the task, its data and the last complete checkpoint (or make round 0's state)."""

    request: int
    choice: TaskChoice
    settings: RoundSettings
    state_dir: str
    """Directory for ``checkpoints/`` and ``spool/``; the worker makes both."""
    threads: int
    """Torch's intra-op threads; 0: as torch likes."""
    swarm_id: str = ""
    """For the metadata of exported models."""
    kept_checkpoints: int = KEPT_CHECKPOINTS
    """How many of the last rounds' states stay on disk."""
    event_dir: str = ""
    """Where TensorBoard finds what each round was like; empty: nowhere."""


class Train(Message, tag="train"):
    """Train round ``round`` from the current state (which is that of ``round - 1``)."""

    request: int
    round: int
    parts: int = 1
    """In how many parts the update is to come; part j is about the elements from P·j//n on of the
    P elements of all tensors in the manifest's order."""


class FinishTraining(Message, tag="finish_training"):
    """End the training that runs after the step in hand and answer with what there is."""

    request: int


class AbandonTraining(Message, tag="abandon_training"):
    """End the training that runs, without a result: its Train fails. Also a new state or a new
    Train does that."""

    request: int


class CheckUpdate(Message, tag="check_update"):
    """Check an update's file against the manifest, before anything of it is believed."""

    request: int
    path: str
    part: int = 0
    parts: int = 1


class Contribution(Message):
    """One committed update."""

    peer_id: str
    path: str
    sample_count: int


class Apply(Message, tag="apply"):
    """Aggregate committed updates, take the outer step, checkpoint, evaluate.

    An empty tuple of contributions carries the state over to the next round unchanged.
    """

    request: int
    round: int
    contributions: tuple[Contribution, ...]


class Reduce(Message, tag="reduce"):
    """Average what peers contributed to one part, weighted by samples, and encode the result."""

    request: int
    round: int
    part: int
    parts: int
    contributions: tuple[Contribution, ...]


class PartResult(Message):
    """The average of one part, as its owner encoded it."""

    part: int
    path: str


class ApplyParts(Message, tag="apply_parts"):
    """Take the outer step with averaged parts, checkpoint, evaluate. Elements of parts that are
    lacking stay as they are, their momentum too."""

    request: int
    round: int
    parts: int
    results: tuple[PartResult, ...]


class Neighbour(Message):
    """A partner's parameters, and what they weigh beside the own ones."""

    peer_id: str
    path: str
    weight: float


class Mix(Message, tag="mix"):
    """Gossip: move from the own parameters (in ``own_path``) towards the neighbours', checkpoint,
    evaluate."""

    request: int
    round: int
    own_path: str
    neighbours: tuple[Neighbour, ...]


class LoadState(Message, tag="load_state"):
    """Take a swarm's state of ``round`` from a file that was fetched from peers."""

    request: int
    round: int
    path: str
    root: bytes


class NoteTraffic(Message, tag="note_traffic"):
    """What went to and came from other peers in the round whose state the worker now holds."""

    request: int
    round: int
    bytes_sent: int
    bytes_received: int


class Export(Message, tag="export"):
    """Write an averaged model as plain safetensors, with metadata."""

    request: int
    path: str
    round: int | None = None
    """One of those whose checkpoints are kept; None: the current one."""


class Shutdown(Message, tag="shutdown"):
    """End the process after answering."""

    request: int


WorkerRequest = (
    OpenTask
    | Train
    | FinishTraining
    | AbandonTraining
    | CheckUpdate
    | Apply
    | Reduce
    | ApplyParts
    | Mix
    | LoadState
    | NoteTraffic
    | Export
    | Shutdown
)


class TaskOpened(Message, tag="task_opened"):
    """Ready to train."""

    request: int
    file_sha256: bytes
    """SHA-256 of the task file; empty for a built-in task."""
    manifest_digest: bytes
    parameter_count: int
    sample_count: int
    """Training samples of this shard."""
    initial_root: bytes
    """Merkle root of round 0's state as this machine makes it."""
    round: int
    """Which round's state the worker holds now: 0, or that of the checkpoint."""
    state: Blob
    max_update_bytes: int
    """No valid update of this model in the swarm's encoding is larger."""
    max_state_bytes: int
    suggestion: RoundSettings = RoundSettings()
    """The settings that the task suggests to whoever founds a swarm with it."""


class Trained(Message, tag="trained"):
    """A round's local training is done and its update encoded."""

    request: int
    round: int
    updates: tuple[Blob, ...]
    """One for each part."""
    sample_count: int
    steps: int
    loss: float
    """Mean training loss over the round's steps."""
    seconds: float


class Checked(Message, tag="checked"):
    """The update is well-formed and finite."""

    request: int


class Reduced(Message, tag="reduced"):
    """A part is averaged (answer to Reduce)."""

    request: int
    update: Blob
    sample_count: int
    """Of all contributions together."""


class StateReady(Message, tag="state_ready"):
    """The worker now holds ``round``'s state (answer to Apply, ApplyParts, Mix and LoadState)."""

    request: int
    round: int
    state: Blob
    loss: float
    """On the test set."""
    accuracy: float
    """The task's metric on the test set, 0 to 1 for an accuracy."""
    checkpoint_problem: str = ""
    """Why this state is in memory only, such as a full disk; empty when it is on disk."""
    event_problem: str = ""
    """Why nothing more comes into the event files; empty while it does, or nobody asked for it."""


class Exported(Message, tag="exported"):
    """The file is written, whole."""

    request: int
    round: int
    size_bytes: int


class Finished(Message, tag="finished"):
    """Done, nothing to tell (answer to FinishTraining, AbandonTraining, NoteTraffic, Shutdown)."""

    request: int


class Failed(Message, tag="failed"):
    """Could not be done. The worker lives and holds what it held before."""

    request: int
    kind: str
    """``config`` (the operator can fix it), ``rejected`` (the bytes are bad), ``internal``."""
    text: str


class Progress(Message, tag="progress"):
    """How the training goes, at most about once a second."""

    round: int
    step: int
    loss: float
    samples_per_second: float


class Working(Message, tag="working"):
    """A batch was evaluated or a block of a model worked on: work that is no training gets on, too.
    At most about once a second."""


WorkerReply = TaskOpened | Trained | Checked | Reduced | StateReady | Exported | Finished | Failed
FromWorker = WorkerReply | Progress | Working
