"""Both halves of a peer in one process, without a daemon: for measurements and :mod:`ml.alone`.

It takes the same steps as a peer's averager and trainer under a daemon, in plain calls.

    learner = Learner(opening)
    trained = learner.train(1)
    state = learner.apply(1, [Contribution("me", trained.updates[0].path, trained.sample_count)])
"""

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ml.averaging.answering import carry_out
from ml.averaging.averager import Averager
from ml.averaging.messages import (
    Apply,
    ApplyParts,
    AveragerReply,
    AveragerRequest,
    Contribution,
    Exported,
    LoadState,
    Mix,
    Neighbour,
    OpenStates,
    PartResult,
    Reduced,
)
from ml.averaging.shared_model import SharedModel
from ml.opening import Opening, StateReady, Trained
from ml.round_steps import Advance, Steps, advance, evaluate, open_task, train_round
from ml.training.trainer import TaskTrainer
from p2pd import messages as trainer
from p2pd.control import TrainingControl
from p2pd.shared_tensors import MEMORIES
from p2pd.trainer import Memories
from protocol.errors import WorkerError

T = TypeVar("T")


class Learner:
    """One peer's averager and trainer. One thread may train while another does everything else."""

    def __init__(
        self,
        opening: Opening,
        *,
        on_work: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_work`` is called after each piece of work that is no training step.

        Raises :class:`ConfigError` for a task, data, settings or checkpoints that cannot do.
        """
        self._on_work = on_work
        self._descriptors = [os.memfd_create(f"p2pd-{name}", os.MFD_CLOEXEC) for name in MEMORIES]
        self._shared = SharedModel(self._descriptors, on_work)
        self._control = TrainingControl()
        self._on_step: Callable[[trainer.Progress], None] = lambda progress: None
        self._training = threading.Lock()
        """Held by the thread that may ask the trainer."""
        self._averager: Averager | None = None
        self._trainer = TaskTrainer(Memories(self._descriptors), self)
        try:
            self.model, self.opened = self._take(open_task(opening))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End a training that runs and close all files."""
        self._control.abandon()
        with self._training:
            self._trainer.close()
        if self._averager is not None:
            self._averager.close()
            self._averager = None
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def train(
        self,
        round_number: int,
        *,
        parts: int = 1,
        control: TrainingControl | None = None,
        on_step: Callable[[trainer.Progress], None] = lambda progress: None,
    ) -> Trained:
        """Train a round and write its update; a training before it ends.

        Raises :class:`TrainingAbandonedError`, and :class:`WorkerError` when the training diverges.
        """
        self._control.abandon()
        self._control = control or TrainingControl()
        self._on_step = on_step
        return self._take(train_round(round_number, parts))

    def check_update(self, round_number: int, path: Path, part: int = 0, parts: int = 1) -> None:
        """Raises :class:`VerificationError` with the reason."""
        self._opened().check_update(round_number, path, part, parts)

    def apply(
        self,
        round_number: int,
        contributions: Sequence[Contribution],
        *,
        is_evaluated: bool = True,
    ) -> StateReady:
        """The next state. Raises :class:`VerificationError` for an update that is not sound."""
        request = Apply(round_number, tuple(contributions))
        return self._advance(request) if is_evaluated else self._take(advance(request))

    def reduce(
        self, round_number: int, part: int, parts: int, contributions: Sequence[Contribution]
    ) -> Reduced:
        """The average of one part. Raises :class:`VerificationError` likewise."""
        return self._opened().reduce(round_number, part, parts, contributions)

    def apply_parts(
        self, round_number: int, parts: int, results: Sequence[PartResult]
    ) -> StateReady:
        """The next state from averaged parts. Raises :class:`VerificationError` likewise."""
        return self._advance(ApplyParts(round_number, parts, tuple(results)))

    def mix(self, round_number: int, own_path: str, neighbours: Sequence[Neighbour]) -> StateReady:
        """The next state between this peer's and others' parameters, in gossip."""
        return self._advance(Mix(round_number, own_path, tuple(neighbours)))

    def load_state(self, round_number: int, path: str, root: bytes) -> StateReady:
        """Take over a state. Raises :class:`VerificationError` when it is not sound."""
        return self._advance(LoadState(round_number, path, root))

    def note_traffic(self, round_number: int, bytes_sent: int, bytes_received: int) -> None:
        """Note a round's traffic for the event file."""
        self._opened().journal.note_traffic(round_number, bytes_sent, bytes_received)

    def export(self, path: Path, round_number: int | None = None) -> Exported:
        """Write a round's model for others to use. Raises :class:`ConfigError`."""
        return self._opened().export(path, round_number)

    def losses(self, round_number: int) -> Sequence[float]:
        """The losses of the parameters in the base memory: this is the averager's bench."""
        return self._trainer.try_out(trainer.TryOut(round_number)).losses

    def report_work(self) -> None:
        """See :class:`p2pd.trainer.Reports`."""
        self._on_work()

    def report_step(self, progress: trainer.Progress) -> None:
        """See :class:`p2pd.trainer.Reports`."""
        self._on_step(progress)

    def _opened(self) -> Averager:
        if self._averager is None:
            raise WorkerError("no task is open")
        return self._averager

    def _advance(self, request: Advance) -> StateReady:
        """The new state, evaluated: no round waits for it here."""
        return self._take(evaluate(self._take(advance(request))))

    def _take(self, steps: Steps[T]) -> T:
        reply: Any = None
        with contextlib.closing(steps):
            while True:
                try:
                    request = steps.send(reply)
                except StopIteration as done:
                    result: T = done.value
                    return result
                reply = self._answer(request)

    def _answer(self, request: AveragerRequest | trainer.Request) -> AveragerReply | trainer.Reply:
        match request:
            case trainer.Open():
                return self._trainer.open(request)
            case trainer.Train():
                control = self._control
                with self._training:
                    return self._trainer.train(request, control)
            case trainer.Evaluate():
                with self._training:
                    return self._trainer.evaluate(request)
            case trainer.Replaced():
                self._control.abandon()
                with self._training:
                    self._trainer.abandon()
                return trainer.Done()
            case OpenStates():
                self._averager = Averager(request, self._shared, bench=self, on_work=self._on_work)
                return self._averager.opened
            case Mix():
                with self._training:  # trials take the trainer's model
                    return carry_out(self._opened(), request)
        assert not isinstance(request, trainer.TryOut | trainer.Finish | trainer.Abandon)
        assert not isinstance(request, trainer.Shutdown | trainer.Standing)
        return carry_out(self._opened(), request)
