"""What this peer adds to a round: local training, then its update in files."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ml.error_feedback import ErrorFeedback
from ml.manifest import Manifest, TensorSpec, tensors_of
from ml.own_updates import OwnUpdates, UpdateKey
from ml.round_rules import RoundRules
from ml.samples import Samples
from ml.state import State, load_into_model
from ml.task import Task
from ml.tensor_file import AnyArray, TensorWriter
from ml.tensor_store import Fill
from ml.train import LocalResult, StepReport, TrainingControl, round_seed, train
from ml.update import pseudo_gradient, trained_values
from ml.update_codec import UpdateCodec
from ml.worker_messages import Blob, TaskChoice

OnStep = Callable[[StepReport], None]


class Contributor:
    """Trains a model that it is lent, and keeps what its updates left over."""

    def __init__(
        self,
        *,
        task: Task,
        samples: Samples,
        choice: TaskChoice,
        rules: RoundRules,
        manifest: Manifest,
        state_dir: Path,
        round_number: int,
        clock: Callable[[], float],
    ) -> None:
        """``round_number``: of the state that is held now."""
        self._task = task
        self._samples = samples
        self._choice = choice
        self._rules = rules
        self._manifest = manifest
        self._clock = clock
        self._updates = OwnUpdates(state_dir / "spool", "update")
        self._paths: frozenset[str] = frozenset()
        self._feedback: ErrorFeedback | None = None
        decay = rules.encoding.residual_decay
        if decay is not None and rules.mixing is None:
            self._feedback = ErrorFeedback(state_dir / "checkpoints", manifest, decay, round_number)

    def contribute(
        self,
        model: nn.Module,
        base: State,
        parts: int,
        control: TrainingControl,
        on_step: OnStep,
    ) -> tuple[tuple[Blob, ...], LocalResult]:
        """Train the round after ``base`` and write its update in ``parts`` files.

        Raises :class:`TrainingAbandonedError`, and :class:`WorkerError` when the training diverges.
        """
        round_number = base.round + 1
        key = UpdateKey(round_number, base.blob.root, 0, parts)
        codecs = [
            UpdateCodec(self._manifest, self._rules.encoding, part, parts) for part in range(parts)
        ]
        found = self._updates.find(key, [codec.layout for codec in codecs])
        if found and (self._feedback is None or self._feedback.take_pending(round_number)):
            blobs, result = found
        else:
            result = self._train(model, base, control, on_step)
            blobs = self._write(model, base, key, codecs, result, control, on_step)
        self._paths = frozenset(blob.path for blob in blobs)
        return blobs, result

    def settle(self, round_number: int, paths: frozenset[str]) -> None:
        """``round_number``'s state is there, made from the files at ``paths`` among others."""
        if self._feedback is not None:
            self._feedback.settle(round_number, committed=not self._paths.isdisjoint(paths))

    def settle_parts(self, round_number: int) -> None:
        """The same in all-reduce, where the parts' owners had the update in hand."""
        self.settle(round_number, self._paths)

    def close(self) -> None:
        """Close all files."""
        self._updates.close()
        if self._feedback is not None:
            self._feedback.close()

    def _train(
        self, model: nn.Module, base: State, control: TrainingControl, on_step: OnStep
    ) -> LocalResult:
        load_into_model(base, model)
        choice = self._choice
        return train(
            model,
            self._task,
            self._samples,
            self._rules.work,
            round_seed(choice.seed, base.round + 1, choice.shard_index, choice.shard_count),
            should_finish=control.should_finish,
            on_step=on_step,
            clock=self._clock,
        )

    def _write(
        self,
        model: nn.Module,
        base: State,
        key: UpdateKey,
        codecs: list[UpdateCodec],
        result: LocalResult,
        control: TrainingControl,
        on_step: OnStep,
    ) -> tuple[Blob, ...]:
        tensors = tensors_of(model)
        progress = StepReport(result.steps, result.loss, 0.0)

        def contribution(spec: TensorSpec, start: int, stop: int) -> AnyArray:
            control.should_finish()
            on_step(progress)
            return self._block(base, spec, tensors[spec.name], start, stop)

        def save(residual: TensorWriter | None) -> tuple[Blob, ...]:
            def fill_of(codec: UpdateCodec) -> Fill:
                left_over = residual.write if residual else None
                return lambda writer: codec.fill(writer, contribution, left_over)

            layouts = [codec.layout for codec in codecs]
            return self._updates.save(key, layouts, [fill_of(codec) for codec in codecs], result)

        if self._feedback is None:
            return save(None)
        saved: list[tuple[Blob, ...]] = []
        self._feedback.write_pending(key.round, lambda residual: saved.append(save(residual)))
        return saved[-1]

    def _block(
        self, base: State, spec: TensorSpec, trained: torch.Tensor, start: int, stop: int
    ) -> AnyArray:
        if self._rules.mixing is not None or not spec.is_float:
            return trained_values(spec, trained, start, stop)
        gradient = pseudo_gradient(base, spec, trained, start, stop)
        if self._feedback is None or not spec.has_momentum:
            return gradient
        return self._feedback.add_to(spec, start, gradient)
