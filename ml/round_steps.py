"""Who does what in a round, between the daemon, the averager and the trainer of one peer.

Each function is a generator: it yields a request to one of the two processes and is sent the
answer. So the daemon, which waits for processes, and :class:`ml.learner.Learner`, which calls
objects, take the same steps.

>>> steps = train_round(1, parts=1)
>>> next(steps)
FindUpdate(round=1, parts=1)
>>> steps.send(UpdateFound(base_root=bytes.fromhex("00ff")))
Train(round=1, base='00ff', from_origin=False)
"""

import math
from collections.abc import Generator
from dataclasses import replace
from typing import Any, TypeVar

from ml.averaging.messages import (
    Adopted,
    Apply,
    ApplyParts,
    AveragerRequest,
    FindUpdate,
    LoadState,
    Mix,
    Noted,
    NoteState,
    StatesOpened,
    UpdateFound,
    WriteUpdate,
)
from ml.opening import (
    Opening,
    StateReady,
    TaskOpened,
    Trained,
    manifest_from,
    metrics_from,
    suggestion_from,
)
from p2pd import messages as trainer
from protocol.errors import WorkerError
from protocol.text import excerpt

T = TypeVar("T")

Steps = Generator[AveragerRequest | trainer.Request, Any, T]


def open_task(opening: Opening) -> Steps[tuple[trainer.Opened, TaskOpened]]:
    """Load task, data and checkpoint."""
    opened: trainer.Opened = yield opening.for_trainer()
    states: StatesOpened = yield opening.for_averager(opened, has_initial=True)
    manifest = manifest_from(opened)
    return opened, TaskOpened(
        file_sha256=bytes.fromhex(opened.task_sha256),
        manifest_digest=manifest.digest,
        frozen=manifest.frozen,
        device=excerpt(opened.device),
        device_problem=excerpt(opened.device_problem),
        parameter_count=manifest.parameter_count,
        sample_count=opened.sample_count,
        initial_root=states.initial_root,
        round=states.round,
        state=states.state,
        max_update_bytes=states.max_update_bytes,
        max_state_bytes=states.max_state_bytes,
        suggestion=suggestion_from(opened),
        sandbox=states.sandbox,
    )


def train_round(round_number: int, parts: int, first: int = 0) -> Steps[Trained]:
    """Train a round from the present state, and write its update in ``parts`` files, that of part
    ``first`` first."""
    found: UpdateFound = yield FindUpdate(round_number, parts)
    written = dict(enumerate(found.parts))
    if not written:
        trained: trainer.Trained = yield trainer.Train(
            round_number, found.base_root.hex(), found.from_origin
        )
        if trained.sample_count < 1 or trained.steps < 1:
            raise WorkerError("the trainer has trained on nothing")
        for part in (*range(first, parts), *range(first)):
            written[part] = yield WriteUpdate(
                round=round_number,
                part=part,
                parts=parts,
                sample_count=trained.sample_count,
                steps=trained.steps,
                loss=trained.loss,
                seconds=trained.seconds,
                samples_per_second=trained.samples_per_second,
                from_origin=trained.from_origin,
            )
    one = written[first]
    return Trained(
        round=round_number,
        updates=tuple(written[part].update for part in range(parts)),
        sample_count=one.sample_count,
        steps=one.steps,
        loss=one.loss,
        seconds=one.seconds,
    )


Advance = Apply | ApplyParts | Mix | LoadState
"""What leads to a new state."""


def advance(request: Advance) -> Steps[StateReady]:
    """``request`` leads to a new state, which is not evaluated yet."""
    adopted: Adopted = yield request
    if isinstance(request, LoadState):
        yield trainer.Replaced()
    return StateReady(
        round=adopted.round,
        state=adopted.state,
        checkpoint_problem=adopted.checkpoint_problem,
        event_problem=adopted.event_problem,
    )


def evaluate(ready: StateReady) -> Steps[StateReady]:
    """How good a state is, which is still held. It may take until the next round is trained."""
    root = ready.state.root
    judged: trainer.Evaluated = yield trainer.Evaluate(ready.round, root.hex())
    # Not a number where the trainer does not evaluate.
    loss = math.nan if judged.loss is None else judged.loss
    metrics = metrics_from(judged.metrics)
    noted: Noted = yield NoteState(ready.round, loss, metrics)
    return replace(ready, loss=loss, metrics=metrics, event_problem=noted.event_problem)
