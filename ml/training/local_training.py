"""Local training of one model, round by round: from the base, or going on from where it is.

With overlap the next round's steps begin while this round's updates are still on their way; what
that is and costs: p2pd/starting_point.py.
"""

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path

from torch import nn

from ml.rules.round_rules import RoundRules
from ml.task.choice import TaskChoice
from ml.task.data import Data
from ml.task.task import Task
from ml.training.head_start import HeadStart, OnStep
from ml.training.inner_optimizer import InnerOptimizer
from ml.training.train import LocalResult, round_seed, steps_an_epoch, train
from p2pd.control import TrainingControl
from p2pd.model_tensors import ModelTensors
from p2pd.shared_tensors import SharedTensors, StaleMemoryError
from p2pd.starting_point import StartingPoint
from p2pd.trainer import Memories
from p2pd.what_travels import describe_still, digest_of, tensors_of
from protocol.errors import ConfigError

INNER_FILE = "inner-optimizer.pt"
MAX_LOOKED_AT_BYTES = 16 << 20
"""Of the buffers that are to stay as they are; looking takes time in every round."""


class LocalTraining:
    """Has ``model`` for itself while :meth:`train` runs, and with overlap always."""

    def __init__(
        self,
        *,
        tensors: ModelTensors,
        task: Task,
        samples: Data,
        choice: TaskChoice,
        rules: RoundRules,
        memories: Memories,
        own_directory: Path | None = None,
    ) -> None:
        """``own_directory``: where the inner optimizer survives this process."""
        self._tensors = tensors
        self._task = task
        self._samples = samples
        self._choice = choice
        self._rules = rules
        self._memories = memories
        self._inner = self._make_inner(own_directory) if rules.keeps_inner else None
        self.frozen = describe_still(tensors.model, tensors.still)
        """What does not travel, as :class:`p2pd.messages.Opened` has it."""
        self._head_start: HeadStart | None = None
        self._start = StartingPoint()

    @property
    def began_elsewhere(self) -> bool:
        """Whether the training that came last began at another place than at its round's base."""
        return self._start.is_elsewhere

    @property
    def has_head_start(self) -> bool:
        """Whether the next round's training has begun, or is done."""
        return self._head_start is not None

    def train(
        self,
        round_number: int,
        base_root: bytes,
        control: TrainingControl,
        on_step: OnStep,
        *,
        from_origin: bool = False,
    ) -> LocalResult:
        """Train a round from the state in the base memory, which has to be that of ``base_root``,
        or from what the origin memory holds for it.

        Raises as :func:`ml.training.train.train` does, and :class:`StaleMemoryError`.
        """
        head_start, self._head_start = self._head_start, None
        if head_start is not None:
            if head_start.round == round_number:
                return head_start.join(control, on_step)
            head_start.abandon()
        self._start.is_in(origin=from_origin)
        memory = self._memories.origin if from_origin else self._memories.base
        self._tensors.read(memory, round_number - 1, base_root)
        return self._run(round_number, control.should_finish, on_step)

    def leave(self, round_number: int, base_root: bytes) -> None:
        """Put what the training came to into the local memory, and where it began.

        Raises :class:`ConfigError` where it changed what does not travel.
        """
        self._check_still(round_number)
        if self._start.tensors:
            origin = self._memories.origin
            self._tensors.write_copies(self._start.tensors, origin, round_number, base_root)
        self._tensors.write(self._memories.local, round_number, base_root)

    def go_on(self, round_number: int, base_root: bytes) -> None:
        """A round is trained and left. With overlap: begin the next one."""
        following = round_number + 1
        if not self._rules.overlap or 0 < self._rules.rounds < following:
            return
        try:
            self._go_back(self._memories.base, round_number - 1, base_root)
        except StaleMemoryError:
            return  # another state is there already: the next training begins from that
        self._head_start = HeadStart(
            following, lambda should_finish, on_step: self._run(following, should_finish, on_step)
        )

    def abandon(self) -> None:
        """Forget what has begun: the next training starts from its base."""
        if self._head_start is not None:
            self._head_start.abandon()
            self._head_start = None
        if self._inner is not None:
            self._inner.settle()

    def _make_inner(self, directory: Path | None) -> InnerOptimizer:
        rules, samples, task = self._rules, self._samples, self._task
        steps = rules.work.max_steps(steps_an_epoch(task, samples, rules.work)) * rules.rounds
        return InnerOptimizer(
            self._tensors.model,
            task,
            total_steps=int(steps) if 0 < steps < math.inf else None,
            file=None if directory is None else directory / INNER_FILE,
        )

    def _check_still(self, round_number: int) -> None:
        """Buffers alone, up to some size: parameters without a gradient have no way to change."""
        tensors = tensors_of(self._tensors.model)
        looked_at = 0
        for name, _, _, sha256 in self.frozen:
            tensor = tensors[name]
            looked_at += tensor.numel() * tensor.element_size()
            if isinstance(tensor, nn.Parameter) or looked_at > MAX_LOOKED_AT_BYTES:
                continue
            if digest_of(tensor) != sha256:
                raise ConfigError(
                    f"training changed the buffer {name} in round {round_number}, and not in its"
                    f" first steps: write MOVING = [{name!r}] into the task, so that it travels"
                )

    def _go_back(self, base: SharedTensors, round_number: int, base_root: bytes) -> None:
        """Go from where this training began to the base that has replaced it meanwhile."""
        with contextlib.ExitStack() as stack:
            if self._start.tensors:
                stack.enter_context(base.reading(round_number, base_root))
            tensors = self._tensors
            self._start.go_back(tensors.own(), lambda name: tensors.read_one(base, name))

    def _run(
        self, round_number: int, should_finish: Callable[[], bool], on_step: OnStep
    ) -> LocalResult:
        choice = self._choice
        return train(
            self._tensors.model,
            self._task,
            self._samples,
            self._rules.work,
            round_seed(choice.seed, round_number, choice.shard_index, choice.shard_count),
            should_finish=should_finish,
            on_step=on_step,
            clock=time.monotonic,
            inner=self._inner or self._make_inner(None),
            round_number=round_number,
        )
