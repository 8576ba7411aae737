"""What the daemon and a trainer say to each other: JSON objects, each with a ``type``.

The daemon asks, the trainer answers each request; :class:`Progress` and :class:`Working` come
unasked while work gets on. Parameters never pass through here: they lie in shared memory
(p2pd/shared_tensors.py). docs/processes.md says who says what when.

>>> encode(Train(round=3, base="00ff"))
b'{"type": "Train", "round": 3, "base": "00ff"}'
>>> decode_request(b'{"type": "Train", "round": 3, "base": "00ff"}').reply_kind()
<class 'p2pd.messages.Trained'>
>>> decode_request(b'{"type": "Train", "round": "three"}')
Traceback (most recent call last):
p2pd.messages.MalformedMessageError: Train: round is str
"""

import json
from dataclasses import dataclass, field, fields
from functools import lru_cache
from types import MappingProxyType, UnionType
from typing import Any, get_type_hints

REPORT_INTERVAL_S = 1.0
"""Work that gets on says so at most so often."""

SUPERSEDED = "another state came before this one was evaluated"


@dataclass(frozen=True, slots=True)
class Open:
    """Load the model and the data; write the tensors of round 0 into the local memory."""

    task: dict[str, Any]
    """What to train, for a trainer that does not know it by itself (ml/task/choice.py)."""
    settings: dict[str, Any]
    """The swarm's round settings, by name (protocol/statements/swarm.py)."""
    seed: int
    """The swarm's: decides initial weights, shards and the order of samples."""
    threads: int = 0
    """Torch's intra-op threads; 0: torch decides."""
    device: str = "cpu"
    """Where to train, as torch names it; ``auto``: the best that works. A script has its own."""
    weights: str = ""
    """A file of safetensors that the model begins with; empty: with what the task makes."""
    without_data: bool = False
    """Say what the model is, and load no data: no training follows."""
    own_directory: str = ""
    """Where the trainer may keep what is its own from round to round, such as an optimizer's state;
    empty: nowhere. It need not be there yet."""

    def reply_kind(self) -> "type[Opened]":
        """What answers it."""
        return Opened


@dataclass(frozen=True, slots=True)
class Train:
    """Train round ``round`` from the base memory, which holds the state of the round before; leave
    what it came to in the local memory. Any other request but :class:`Evaluate`
    ends a training without a result."""

    round: int
    base: str
    """The state's Merkle root in hex, which stands in the base memory too."""
    from_origin: bool = False
    """Begin at what the origin memory holds, which is of that state too, and not at the state: it
    lacks what this peer's earlier updates left over."""

    def reply_kind(self) -> "type[Trained]":
        """What answers it."""
        return Trained


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Say how good the state in the base memory is, once no training waits for this process: after
    the next :class:`Train` is answered, or when nothing else is asked. Fails where another state
    has taken its place. It ends no training but one of its own round or an earlier one."""

    round: int
    root: str
    """The state's Merkle root in hex."""

    def reply_kind(self) -> "type[Evaluated]":
        """What answers it."""
        return Evaluated


@dataclass(frozen=True, slots=True)
class Replaced:
    """The state in the base memory came from elsewhere: a training that has begun ahead is void."""

    def reply_kind(self) -> "type[Done]":
        """What answers it."""
        return Done


@dataclass(frozen=True, slots=True)
class TryOut:
    """Say what the parameters in the base memory, which are no state, come to on samples that are
    kept for that. In gossip with aggregation ``trial`` only."""

    round: int
    """The round of the state that this round began from; the samples follow from it."""

    def reply_kind(self) -> "type[Tried]":
        """What answers it."""
        return Tried


@dataclass(frozen=True, slots=True)
class Standing:
    """How the swarm stands, about once a second. Only a user's own script is told."""

    round: int
    """The last one that is complete."""
    root: str
    """Merkle root, in hex, of its state, which is in the base memory once nothing changes there."""
    peers: int
    """Those that train, with this one."""
    samples: int
    """What all peers together have trained on so far: counted where this peer was there, and taken
    to have been as many a round before that."""
    phase: str
    waits_for: str
    """For people; empty: for nothing."""
    complete: bool
    """Whether no round will follow."""

    def reply_kind(self) -> "type[Done]":
        """What answers it, at once."""
        return Done


@dataclass(frozen=True, slots=True)
class Finish:
    """End the training that runs after the step in hand, with what there is."""

    def reply_kind(self) -> "type[Done]":
        """What answers it, at once."""
        return Done


@dataclass(frozen=True, slots=True)
class Abandon:
    """End the training that runs, without a result: its Train fails."""

    def reply_kind(self) -> "type[Done]":
        """What answers it, at once."""
        return Done


@dataclass(frozen=True, slots=True)
class Shutdown:
    """End the process after answering."""

    def reply_kind(self) -> "type[Done]":
        """What answers it, at once."""
        return Done


@dataclass(frozen=True, slots=True)
class Opened:
    """Ready to train."""

    tensors: list[Any]
    """Every tensor that travels as [name, dtype, shape, kind], sorted by name, tied ones once.
    ``dtype`` as safetensors spells it; ``kind``: ``parameter`` or ``buffer``."""
    tied: dict[str, Any]
    """Every further name of a tied tensor, and the name under which it is in ``tensors``."""
    sample_count: int
    """Training samples that this peer has."""
    frozen: list[Any] = field(default_factory=list)
    """Every tensor that does not travel as [name, dtype, shape, SHA-256 in hex], sorted by name.
    ``dtype`` as torch spells it."""
    device: str = ""
    """Where it trains, for people."""
    device_problem: str = ""
    """Why that is not the device that was asked for, or the best one; empty: it is."""
    task: str = ""
    """The task's name."""
    task_sha256: str = ""
    """SHA-256 of a task file in hex; empty where there is none."""
    suggestion: dict[str, Any] = field(default_factory=dict)
    """Round settings that the task suggests to founders."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A round's local training is done, and what it came to is in the local memory."""

    round: int
    sample_count: int
    """How many different samples were seen."""
    steps: int
    loss: float
    """Mean training loss over the round's steps."""
    seconds: float
    samples_per_second: float = 0.0
    from_origin: bool = False
    """It began at what the origin memory holds, not at the base: as it was asked to, or with
    overlap, where the trainer wrote that memory itself."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """How good a state is; None where this trainer does not evaluate."""

    loss: float | None
    metrics: list[Any] = field(default_factory=list)
    """Each as [name, value or null, what is better, format]: ``higher``, ``lower``, or empty where
    nobody said; a format as Python has it. The leading one first."""


@dataclass(frozen=True, slots=True)
class Tried:
    """The loss on each of some groups of samples, the same groups for every trial of a round."""

    losses: list[Any]


@dataclass(frozen=True, slots=True)
class Done:
    """The request was carried out, and there is nothing to tell."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Could not be done. The trainer lives and holds what it held before."""

    kind: str
    """``config`` (the operator can fix it), ``data`` (so it is, and the data are what is missing)
    or ``internal``."""
    text: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How the training goes, about once a second."""

    round: int
    step: int
    loss: float
    samples_per_second: float


@dataclass(frozen=True, slots=True)
class Working:
    """Work that is no training gets on too, such as a batch of an evaluation."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a user's own script found a state to be like, unasked."""

    round: int
    loss: float | None
    metrics: list[Any] = field(default_factory=list)
    """As in :class:`Evaluated`."""


Request = Open | Train | Evaluate | Replaced | TryOut | Standing | Finish | Abandon | Shutdown
Reply = Opened | Trained | Evaluated | Tried | Done | Failed
FromTrainer = Reply | Progress | Working | Judged

_REQUESTS = (Open, Train, Evaluate, Replaced, TryOut, Standing, Finish, Abandon, Shutdown)
_FROM_TRAINER = (Opened, Trained, Evaluated, Tried, Done, Failed, Progress, Working, Judged)


class MalformedMessageError(ValueError):
    """The bytes are no message."""


def encode(message: Request | FromTrainer) -> bytes:
    """The JSON of ``message``, without what is as it is by default."""
    said = {
        one.name: getattr(message, one.name)
        for one in fields(message)
        if getattr(message, one.name) != one.default
    }
    return json.dumps({"type": type(message).__name__, **said}).encode()


def decode_request(data: bytes) -> Request:
    """Decode a request to a trainer. Raises :class:`MalformedMessageError`."""
    request: Request = _decode(data, _REQUESTS)
    return request


def decode_from_trainer(data: bytes) -> FromTrainer:
    """Decode what a trainer said. Raises :class:`MalformedMessageError`."""
    message: FromTrainer = _decode(data, _FROM_TRAINER)
    return message


def _decode(data: bytes, kinds: tuple[type, ...]) -> Any:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError(f"no JSON: {error}") from error
    if not isinstance(document, dict):
        raise MalformedMessageError("no JSON object")
    name = document.pop("type", None)
    kind = next((one for one in kinds if one.__name__ == name), None)
    if kind is None:
        raise MalformedMessageError(f"unknown type {name!r}")
    wanted = _types_of(kind)
    for key, value in document.items():
        if key not in wanted:
            raise MalformedMessageError(f"{name} has no field {key!r}")
        if type(value) not in wanted[key] and not (float in wanted[key] and type(value) is int):
            raise MalformedMessageError(f"{name}: {key} is {type(value).__name__}")
    try:
        return kind(**document)
    except TypeError as error:
        raise MalformedMessageError(f"{name}: {error}") from error


@lru_cache
def _types_of(kind: type) -> MappingProxyType[str, tuple[type, ...]]:
    hints = get_type_hints(kind)
    return MappingProxyType({one.name: _plain(hints[one.name]) for one in fields(kind)})


def _plain(hint: Any) -> tuple[type, ...]:
    """dict[str, Any] and list[Any] are checked for what they are, not for what is in them."""
    if isinstance(hint, UnionType):
        return hint.__args__
    return (getattr(hint, "__origin__", hint),)
