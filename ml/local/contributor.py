"""What this peer adds to a round: local training, then its update in files."""

from pathlib import Path

import numpy as np

from ml.local.error_feedback import ErrorFeedback
from ml.local.head_start import OnStep
from ml.local.local_training import LocalTraining
from ml.local.own_updates import OwnUpdates, UpdateKey
from ml.local.train import LocalResult, StepReport, TrainingControl
from ml.rules.round_rules import RoundRules
from ml.state.blob import Blob
from ml.state.manifest import Manifest, TensorSpec
from ml.state.state import State
from ml.state.tensor_file import AnyArray, TensorWriter
from ml.state.tensor_store import Fill
from ml.update.codec import UpdateCodec


class Contributor:
    """Has a model trained, writes what it came to, and keeps what its updates left over."""

    def __init__(
        self,
        *,
        training: LocalTraining,
        rules: RoundRules,
        manifest: Manifest,
        state_dir: Path,
        round_number: int,
    ) -> None:
        """``round_number``: of the state that is held now."""
        self._training = training
        self._rules = rules
        self._manifest = manifest
        self._updates = OwnUpdates(state_dir / "spool", "update")
        self._paths: frozenset[str] = frozenset()
        self._feedback: ErrorFeedback | None = None
        decay = rules.encoding.residual_decay
        if decay is not None and rules.mixing is None:
            self._feedback = ErrorFeedback(state_dir / "checkpoints", manifest, decay, round_number)

    def contribute(
        self, base: State, parts: int, control: TrainingControl, on_step: OnStep
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
            result = self._training.train(base, control, on_step)
            blobs = self._write(base, key, codecs, result, control, on_step)
            self._training.go_on(base)
        self._paths = frozenset(blob.path for blob in blobs)
        return blobs, result

    def settle(self, round_number: int, paths: frozenset[str]) -> None:
        """``round_number``'s state is there, made from the files at ``paths`` among others."""
        if self._feedback is not None:
            self._feedback.settle(round_number, committed=not self._paths.isdisjoint(paths))

    def settle_parts(self, round_number: int) -> None:
        """The same in all-reduce, where the parts' owners had the update in hand."""
        self.settle(round_number, self._paths)

    def begin_anew(self) -> None:
        """Another state has come from elsewhere: what has begun from the present one is void."""
        self._training.abandon()

    def close(self) -> None:
        """Close all files."""
        self._training.abandon()
        self._updates.close()
        if self._feedback is not None:
            self._feedback.close()

    def _write(
        self,
        base: State,
        key: UpdateKey,
        codecs: list[UpdateCodec],
        result: LocalResult,
        control: TrainingControl,
        on_step: OnStep,
    ) -> tuple[Blob, ...]:
        feedback = self._feedback
        progress = StepReport(result.steps, result.loss, 0.0)

        def contribution(spec: TensorSpec, start: int, stop: int) -> AnyArray:
            control.should_finish()
            on_step(progress)
            values = self._training.contribution(base, spec, start, stop)
            if feedback is None or not spec.has_momentum:
                return values
            return feedback.add_to(spec, start, values.astype(np.float32, copy=False))

        def save(residual: TensorWriter | None) -> tuple[Blob, ...]:
            def fill_of(codec: UpdateCodec) -> Fill:
                left_over = residual.write if residual else None
                return lambda writer: codec.fill(writer, contribution, left_over)

            layouts = [codec.layout for codec in codecs]
            return self._updates.save(key, layouts, [fill_of(codec) for codec in codecs], result)

        if feedback is None:
            return save(None)
        saved: list[tuple[Blob, ...]] = []
        feedback.write_pending(key.round, lambda residual: saved.append(save(residual)))
        return saved[-1]
