"""p2pd's own trainer: a task file's model, trained on a shard of its data.

Every method carries out one request of p2pd/messages.py, one after the other. With overlap another
model is trained than evaluated, so that a training that has begun ahead goes on meanwhile.
"""

import logging
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from ml.aggregate.mixing import TrialMixing
from ml.rules.round_rules import RoundRules, parse_rules
from ml.task.choice import TaskChoice, choice_from
from ml.task.data import Data, load_shard, load_test_samples
from ml.task.load import load_task
from ml.task.samples import Samples
from ml.task.task import Task
from ml.training.devices import CPU, Chosen, choose_device, reason_in
from ml.training.first_steps import initial_tensors, untried_tensors
from ml.training.held_out import HeldOut, hold_out
from ml.training.local_training import LocalTraining
from ml.training.train import StepReport, evaluate
from ml.training.weights import check_base, start_from
from p2pd.control import TrainingAbandonedError, TrainingControl
from p2pd.messages import (
    Evaluate,
    Evaluated,
    Failed,
    Open,
    Opened,
    Progress,
    Train,
    Trained,
    Tried,
    TryOut,
)
from p2pd.metrics import finite, tell
from p2pd.model_tensors import ModelTensors
from p2pd.shared_tensors import NO_ROOT, StaleMemoryError
from p2pd.trainer import Memories, Reports
from p2pd.what_travels import Description, UnusableModelError, describe_still, tied_names
from protocol.errors import ConfigError, NoDataError, P2PDError, WorkerError
from protocol.statements.swarm import RoundSettings

logger = logging.getLogger(__name__)

KEPT_EVALUATIONS = 8


@dataclass(frozen=True, slots=True)
class _Open:
    """What is there once a task is open."""

    task: Task
    tensors: ModelTensors
    """The tensors of the model that is evaluated."""
    training: LocalTraining
    test_samples: Data | None
    """None where nobody evaluates."""
    held_out: HeldOut | None
    """In gossip with aggregation ``trial``."""


class TaskTrainer:
    """Implements :class:`p2pd.trainer.Trainer`.

    Example (ml/training/__main__.py)::

        daemon = TrainerEnd(Channel(int(sys.argv[1])))
        daemon.serve(TaskTrainer(daemon.memories, daemon))
    """

    def __init__(
        self,
        memories: Memories,
        reports: Reports,
    ) -> None:
        self._memories = memories
        self._on_step = reports.report_step
        self._on_work = reports.report_work
        self._opened: _Open | None = None
        self._evaluations: dict[bytes, Evaluated] = {}
        self._taken = NO_ROOT
        """Of the state that the evaluated model holds."""

    def open(self, request: Open) -> Opened:
        """Load the task and its data. Raises :class:`ConfigError` for what cannot do."""
        self.close()
        self._evaluations.clear()
        self._taken = NO_ROOT
        if request.threads:
            torch.set_num_threads(request.threads)
        choice = choice_from(request.task)
        if request.without_data:
            return self._look_at(choice, request.weights)
        rules = parse_rules(RoundSettings(**request.settings))
        chosen = choose_device(request.device)
        try:
            opened, sample_count = self._load(request, choice, rules, chosen.device)
        except Exception as error:
            if chosen.device.type == CPU:
                raise
            # A device that computes may still lack an operation of this model, or the memory.
            failed = chosen
            chosen = Chosen(
                torch.device(CPU),
                f"{failed.name} cannot be used for this task: {reason_in(error)}",
            )
            opened, sample_count = self._load(request, choice, rules, chosen.device)
        if chosen.problem:
            logger.warning("training on %s: %s", chosen.name, chosen.problem)
        self._opened = opened
        told = _told(opened.task, opened.tensors, opened.training.frozen, request.weights)
        told = replace(told, device=chosen.name, device_problem=chosen.problem)
        return replace(told, sample_count=sample_count)

    def _look_at(self, choice: TaskChoice, weights: str) -> Opened:
        task = load_task(choice.task, builtin=choice.builtin, file_sha256=choice.file_sha256)
        model = _made(task, choice, weights)
        tensors = untried_tensors(model, task, self._memories.local)
        return _told(task, tensors, describe_still(model, tensors.still), weights)

    def train(self, request: Train, control: TrainingControl) -> Trained:
        """Train a round and leave what it came to in the local memory.

        Raises :class:`TrainingAbandonedError`, :class:`StaleMemoryError` and :class:`WorkerError`.
        """
        training = self._require().training
        base_root = bytes.fromhex(request.base)
        samples_per_second = 0.0

        def note_step(report: StepReport) -> None:
            nonlocal samples_per_second
            samples_per_second = report.samples_per_second or samples_per_second
            self._on_step(
                Progress(request.round, report.step, report.loss, report.samples_per_second)
            )

        control.should_finish()
        self._taken = NO_ROOT
        result = training.train(
            request.round, base_root, control, note_step, from_origin=request.from_origin
        )
        control.should_finish()
        from_origin = training.began_elsewhere
        training.leave(request.round, base_root)
        training.go_on(request.round, base_root)
        return Trained(
            round=request.round,
            sample_count=result.sample_count,
            steps=result.steps,
            loss=result.loss,
            seconds=result.seconds,
            samples_per_second=samples_per_second,
            from_origin=from_origin,
        )

    def take_base(self, request: Evaluate) -> None:
        """Have the evaluated model hold the base memory's state.

        Raises :class:`StaleMemoryError` where that is another one.
        """
        root = bytes.fromhex(request.root)
        if self._taken != root:
            self._taken = NO_ROOT
            self._require().tensors.read(self._memories.base, request.round, root)
            self._taken = root

    def evaluate(self, request: Evaluate) -> Evaluated:
        """Loss and metrics of the base memory's state on the test set."""
        opened = self._require()
        if opened.test_samples is None:
            return Evaluated(None, [])
        root = bytes.fromhex(request.root)
        if root not in self._evaluations:
            self.take_base(request)
            model = opened.tensors.model
            found = evaluate(model, opened.task, opened.test_samples, self._on_work)
            declared = opened.task.options.metrics
            values = {"loss": found.loss, **found.metrics}
            told = tell(
                declared, {one.name: values[one.name] for one in declared if one.name in values}
            )
            self._evaluations[root] = Evaluated(finite(found.loss), told)
            while len(self._evaluations) > KEPT_EVALUATIONS:
                del self._evaluations[next(iter(self._evaluations))]
        return self._evaluations[root]

    def abandon(self) -> None:
        """End a training that has begun ahead: its base was replaced."""
        self._require().training.abandon()

    def try_out(self, request: TryOut) -> Tried:
        """Losses of the base memory's parameters on held-out samples."""
        opened = self._require()
        if opened.held_out is None:
            raise WorkerError("no samples are kept for trials")
        self._taken = NO_ROOT
        opened.tensors.read(self._memories.base, request.round, NO_ROOT)
        return Tried(opened.held_out.losses(opened.tensors.model, request.round))

    def failure(self, error: Exception) -> Failed | None:
        """What the daemon is told of ``error``."""
        match error:
            case NoDataError():
                return Failed("data", str(error))
            case ConfigError():
                return Failed("config", str(error))
            case UnusableModelError():
                return Failed("config", f"the model has become another one: {error}")
            case P2PDError() | OSError() | TrainingAbandonedError() | StaleMemoryError():
                return Failed("internal", str(error))
        return None

    def end(self, reason: str) -> None:
        """End this process and its helpers at once.

        Not sys.exit: that would wait for threads that are inside torch.
        """
        if reason:
            logger.info("%s", reason)
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os._exit(0)

    def close(self) -> None:
        """End a training that has begun ahead."""
        if self._opened is not None:
            self._opened.training.abandon()
            self._opened = None

    def _require(self) -> _Open:
        if self._opened is None:
            raise WorkerError("no task is open")
        return self._opened

    def _load(
        self, request: Open, choice: TaskChoice, rules: RoundRules, device: torch.device
    ) -> tuple[_Open, int]:
        task = load_task(choice.task, builtin=choice.builtin, file_sha256=choice.file_sha256)
        samples = load_shard(task, choice, device)
        self._on_work()
        tried_samples: Samples | None = None
        if isinstance(rules.mixing, TrialMixing):
            samples, tried_samples = hold_out(samples, choice.seed)
        test_samples = load_test_samples(task, choice, device) if rules.evaluates else None
        self._on_work()
        model = _made(task, choice, request.weights)
        self._on_work()
        tensors = initial_tensors(
            model,
            task,
            samples,
            test_samples,
            memory=self._memories.local,
            device=device,
            tried=choice.tried,
            on_work=self._on_work,
        )
        self._on_work()
        trained = tensors
        if rules.overlap:
            trained = ModelTensors(task.make_model(choice.seed).to(device), tensors.still)
        training = LocalTraining(
            tensors=trained,
            task=task,
            samples=samples,
            choice=choice,
            rules=rules,
            memories=self._memories,
            own_directory=Path(request.own_directory) if request.own_directory else None,
        )
        held_out = None
        if tried_samples is not None:
            held_out = HeldOut(task, tried_samples, choice.seed, self._on_work)
        count = len(samples) if isinstance(samples, Samples) else 0
        return _Open(task, tensors, training, test_samples, held_out), count


def _made(task: Task, choice: TaskChoice, weights: str) -> nn.Module:
    """The model as it begins. Raises :class:`ConfigError`."""
    model = task.make_model(choice.seed)
    if weights:
        start_from(model, Path(weights))
    return model


def _told(task: Task, tensors: ModelTensors, frozen: Sequence[Description], weights: str) -> Opened:
    """What a task's model is. Raises :class:`ConfigError`."""
    if weights:
        check_base(frozen, Path(weights))
    suggestion = {name: getattr(task.suggestion, name) for name in RoundSettings.__struct_fields__}
    return Opened(
        tensors=[list(one) for one in tensors.description],
        tied=dict(tied_names(tensors.model)),
        sample_count=0,
        frozen=[list(one) for one in frozen],
        task=task.name,
        task_sha256=task.file_sha256.hex(),
        suggestion=suggestion,
    )
