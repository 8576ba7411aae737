"""Opening a task: what both processes are told, and what they find out together."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ml.averaging.messages import OpenStates
from ml.state.blob import KEPT_CHECKPOINTS, Blob
from ml.state.manifest import FrozenTensor, Manifest, TensorSpec
from ml.state.provenance import provenance_of
from ml.task.choice import TaskChoice, choice_to
from p2pd.messages import Open, Opened
from p2pd.metrics import MAX_METRICS, Metric, finite
from protocol.errors import WorkerError
from protocol.metric import MetricValue
from protocol.statements.swarm import RoundSettings


@dataclass(frozen=True, slots=True)
class Opening:
    """The task to open, its rules, and the directories to use."""

    choice: TaskChoice
    settings: RoundSettings
    state_dir: str
    """Directory for ``checkpoints/`` and ``spool/``; the averager makes both."""
    threads: int
    """Torch's intra-op threads; 0: torch decides."""
    swarm_id: str = ""
    """The swarm, for the metadata of exported models."""
    kept_checkpoints: int = KEPT_CHECKPOINTS
    """How many of the last rounds' states stay on disk."""
    checkpoint_bytes: int = 0
    """What they may take of the disk together; 0: no limit."""
    device: str = "cpu"
    """Where to train, as torch names it; ``auto``: the best that works."""
    weights: str = ""
    """A file with the weights that round 0 has; empty: those that the task makes."""
    without_data: bool = False
    """Whether only the model is to be looked at."""
    event_dir: str = ""
    """The directory of event files for TensorBoard; empty: none are written."""

    def for_trainer(self) -> Open:
        """What the trainer is asked."""
        return Open(
            task=choice_to(self.choice),
            settings={
                name: getattr(self.settings, name) for name in RoundSettings.__struct_fields__
            },
            seed=self.choice.seed,
            threads=self.threads,
            device=self.device,
            weights=self.weights,
            without_data=self.without_data,
            own_directory=str(Path(self.state_dir) / "trainer"),
        )

    def for_averager(self, opened: Opened, *, has_initial: bool) -> OpenStates:
        """What the averager is asked, once the trainer has said what the model is."""
        return OpenStates(
            manifest=manifest_from(opened),
            tied={str(name): str(first) for name, first in opened.tied.items()},
            settings=self.settings,
            state_dir=self.state_dir,
            metadata=metadata_of(opened, self.swarm_id, self.choice.seed),
            kept_checkpoints=self.kept_checkpoints,
            checkpoint_bytes=self.checkpoint_bytes,
            event_dir=self.event_dir,
            has_initial=has_initial,
        )


@dataclass(frozen=True, slots=True)
class TaskOpened:
    """Ready to train."""

    file_sha256: bytes
    """SHA-256 of the task file; empty for a built-in task."""
    manifest_digest: bytes
    parameter_count: int
    sample_count: int
    """Training samples of this shard."""
    initial_root: bytes
    """Merkle root of round 0's state as this machine makes it."""
    round: int
    """The round of the state that is held now: 0, or the checkpoint's."""
    state: Blob
    max_update_bytes: int
    """No valid update of this model in the swarm's encoding is larger."""
    max_state_bytes: int
    suggestion: RoundSettings = field(default_factory=RoundSettings)
    """The settings that the task suggests to founders."""
    sandbox: str = ""
    """What keeps the averager in, in words."""
    frozen: tuple[FrozenTensor, ...] = ()
    """What does not travel."""
    device: str = ""
    """Where the trainer trains, for people."""
    device_problem: str = ""
    """Why that is not the device that was asked for, or the best one; empty: it is."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A round's local training is done and its update encoded."""

    round: int
    updates: tuple[Blob, ...]
    """One for each part."""
    sample_count: int
    steps: int
    loss: float
    """Mean training loss over the round's steps."""
    seconds: float


@dataclass(frozen=True, slots=True)
class StateReady:
    """``round``'s state is held now."""

    round: int
    state: Blob
    loss: float = math.nan
    """On the test set; not a number until it is evaluated, and where nobody does."""
    metrics: tuple[MetricValue, ...] = ()
    """The task's, on the test set, likewise; the leading one first."""
    checkpoint_problem: str = ""
    """Why this state is in memory only, such as a full disk; empty when it is on disk."""
    event_problem: str = ""
    """Why nothing more comes into the event files; empty while it does, or nobody asked for it."""
    is_evaluating: bool = False
    """Whether how good it is will be known soon."""

    @property
    def leading(self) -> float:
        """The leading metric; NaN where there is none."""
        value = self.metrics[0].value if self.metrics else None
        return math.nan if value is None else value

    @property
    def quality(self) -> str:
        """How good it is, for a log."""
        if self.metrics:
            return str(self.metrics[0])
        return "not evaluated" if math.isnan(self.loss) else f"loss {self.loss:.4f}"


def metadata_of(opened: Opened, swarm_id: str, seed: int) -> dict[str, str]:
    """What an exported file says of where it comes from, whoever exports it."""
    return provenance_of(
        task=opened.task,
        task_sha256=opened.task_sha256,
        swarm_id=swarm_id,
        seed=seed,
        frozen=opened.frozen,
    )


def manifest_from(opened: Opened) -> Manifest:
    """The manifest of the trainer's model. Raises :class:`WorkerError` for what is none.

    >>> manifest_from(Opened([["w", "F32", [2, 3], "parameter"]], {}, 60)).parameter_count
    6
    >>> manifest_from(Opened([["w", "F32"]], {}, 60))
    Traceback (most recent call last):
    protocol.errors.WorkerError: the trainer describes no model: not enough values to unpack ...
    """
    try:
        tensors = tuple(
            TensorSpec(name, dtype, tuple(shape), kind)
            for name, dtype, shape, kind in opened.tensors
        )
        frozen = tuple(
            FrozenTensor(name, dtype, tuple(shape), bytes.fromhex(sha256))
            for name, dtype, shape, sha256 in opened.frozen
        )
        manifest = msgspec.convert(msgspec.to_builtins(Manifest(tensors, frozen)), Manifest)
    except (TypeError, ValueError) as error:
        raise WorkerError(f"the trainer describes no model: {error}") from error
    return manifest


def suggestion_from(opened: Opened) -> RoundSettings:
    """The settings that the task suggests. Raises :class:`WorkerError` for what is none."""
    try:
        suggestion = RoundSettings(**opened.suggestion)
        return msgspec.convert(msgspec.to_builtins(suggestion), RoundSettings)
    except (TypeError, ValueError) as error:
        raise WorkerError(f"the trainer suggests no settings: {error}") from error


def metrics_from(told: list[Any]) -> tuple[MetricValue, ...]:
    """What a trainer measured (:class:`p2pd.messages.Evaluated`).

    Raises :class:`WorkerError` for what are no metrics.
    """
    try:
        if len(told) > MAX_METRICS:
            raise ValueError(f"{len(told)} of them")
        return tuple(
            MetricValue(metric.name, finite(value), metric.better, metric.format)
            for name, value, better, form in told
            for metric in (Metric(name, better, form),)
        )
    except (TypeError, ValueError) as error:
        raise WorkerError(f"the trainer tells no metrics: {error}") from error
