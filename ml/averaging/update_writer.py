"""What this peer adds to a round: its update in files, made from what the trainer left."""

from pathlib import Path

import numpy as np

from ml.averaging.error_feedback import ErrorFeedback
from ml.averaging.own_updates import OwnUpdates, UpdateKey, WorkDone
from ml.averaging.shared_model import TrainedModel
from ml.rules.round_rules import RoundRules
from ml.state.blob import OWN_UPDATES, Blob
from ml.state.manifest import Manifest, TensorSpec
from ml.state.state import State
from ml.state.tensor_file import AnyArray, TensorSink
from ml.state.tensor_store import Fill
from ml.update.codec import UpdateCodec
from ml.update.pseudo_gradient import difference, pseudo_gradient, trained_values
from p2pd.shared_tensors import StaleMemoryError
from protocol.errors import WorkerError


class UpdateWriter:
    """Writes this peer's updates, and keeps what they left over."""

    def __init__(
        self,
        *,
        rules: RoundRules,
        manifest: Manifest,
        state_dir: Path,
        round_number: int,
    ) -> None:
        """``round_number``: of the state that is held now."""
        self._rules = rules
        self._manifest = manifest
        self._updates = OwnUpdates(state_dir / OWN_UPDATES, "update")
        self._paths: frozenset[str] = frozenset()
        self._feedback: ErrorFeedback | None = None
        decay = rules.encoding.residual_decay
        if decay is not None and rules.mixing is None:
            self._feedback = ErrorFeedback(state_dir / "checkpoints", manifest, decay, round_number)

    def find(self, base: State, parts: int) -> tuple[tuple[Blob, ...], WorkDone] | None:
        """The update of the round after ``base`` that was written before, if it is there whole."""
        layouts = [codec.layout for codec in self._codecs(parts)]
        found = self._updates.find(self._key(base, parts), layouts)
        if not found:
            return None
        if self._feedback is not None and not self._feedback.take_pending(base.round + 1):
            return None
        self._paths = frozenset(blob.path for blob in found[0])
        return found

    def write(
        self, base: State, parts: int, trained: TrainedModel, done: WorkDone
    ) -> tuple[Blob, ...]:
        """Write the update of the round after ``base`` in ``parts`` files.

        Raises :class:`WorkerError` when the training left numbers that cannot be used, or is not of
        this base.
        """
        try:
            with trained.reading:
                blobs = self._write(base, parts, trained, done)
        except StaleMemoryError as error:
            raise WorkerError(f"the training is not of this round's base: {error}") from error
        self._paths = frozenset(blob.path for blob in blobs)
        return blobs

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

    def _codecs(self, parts: int) -> list[UpdateCodec]:
        return [
            UpdateCodec(self._manifest, self._rules.encoding, part, parts) for part in range(parts)
        ]

    def _key(self, base: State, parts: int) -> UpdateKey:
        return UpdateKey(base.round + 1, base.blob.root, 0, parts)

    def _write(
        self, base: State, parts: int, trained: TrainedModel, done: WorkDone
    ) -> tuple[Blob, ...]:
        key = self._key(base, parts)
        codecs = self._codecs(parts)
        feedback = self._feedback

        def movement(spec: TensorSpec, start: int, stop: int) -> AnyArray:
            values = self._movement(base, trained, spec, start, stop)
            if feedback is None or not spec.has_momentum:
                return values
            return feedback.add_to(spec, start, values.astype(np.float32, copy=False))

        def save(residual: TensorSink | None) -> tuple[Blob, ...]:
            def fill_of(codec: UpdateCodec) -> Fill:
                left_over = residual.write if residual else None
                return lambda writer: codec.fill(writer, movement, left_over)

            layouts = [codec.layout for codec in codecs]
            return self._updates.save(key, layouts, [fill_of(codec) for codec in codecs], done)

        if feedback is None:
            return save(None)
        saved: list[tuple[Blob, ...]] = []
        feedback.write_pending(key.round, lambda residual: saved.append(save(residual)))
        return saved[-1]

    def _movement(
        self, base: State, trained: TrainedModel, spec: TensorSpec, start: int, stop: int
    ) -> AnyArray:
        """Pseudo-gradients; integers, and in gossip all, as they are."""
        values = trained.read(spec, start, stop)
        if not spec.is_float or self._rules.mixing is not None:
            return trained_values(spec, values)
        if trained.began_elsewhere:
            return difference(spec, trained.read_origin(spec, start, stop), values)
        return pseudo_gradient(spec, base.read(spec, start, stop), values)
