"""What this peer adds to a round: its update in files, made from what the trainer left.

In all-reduce part by part, so that the first is on its way while the next is encoded.
"""

import contextlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np

from ml.averaging.error_feedback import Block, ErrorFeedback
from ml.averaging.own_updates import OwnUpdate, OwnUpdates, UpdateKey, WorkDone
from ml.averaging.shared_model import TrainedModel
from ml.rules.round_rules import RoundRules
from ml.state.blob import OWN_UPDATES
from ml.state.manifest import Manifest, TensorSpec
from ml.state.state import State
from ml.state.tensor_file import AnyArray, TensorSink
from ml.update.codec import ReadBlock, UpdateCodec
from ml.update.parts import Segment, segments_of
from ml.update.pseudo_gradient import pseudo_gradient, trained_values
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
        self._written: dict[UpdateKey, OwnUpdate] = {}
        """The parts that were written together, as far as they are asked for again."""
        self._feedback: ErrorFeedback | None = None
        decay = rules.encoding.residual_decay
        if rules.left_over_stays and (decay is not None or rules.fragments > 1):
            decay = 1.0
        if decay is not None and rules.mixing is None:
            self._feedback = ErrorFeedback(state_dir / "checkpoints", manifest, decay, round_number)

    def find(self, base: State, parts: int) -> list[OwnUpdate]:
        """The update of the round after ``base`` that was written before, in so many parts; empty
        unless all of it is there whole."""
        self._forget()
        found = {}
        for part in range(parts):
            key = self._key(base, part, parts)
            one = self._updates.find(key, self._codec(key).layout)
            if one is None:
                return []
            found[key] = one
        if self._feedback is not None and not self._feedback.take_pending(base.round + 1):
            return []
        self._written = found
        self._paths = frozenset(one.blob.path for one in found.values())
        return list(found.values())

    @property
    def has_start(self) -> bool:
        """Whether the next training begins at :meth:`read_start`, not at its base."""
        if self._feedback is None or not self._rules.left_over_stays:
            return False
        return not self._feedback.is_empty

    def read_start(self, base: State, spec: TensorSpec, start: int, stop: int) -> AnyArray:
        """A block of where the next training begins."""
        values = base.read(spec, start, stop)
        if self._feedback is None or not spec.has_momentum:
            return values
        return self._feedback.begin_with(spec, start, values.astype(np.float32, copy=False))

    def write(
        self, base: State, part: int, parts: int, trained: TrainedModel, done: WorkDone
    ) -> OwnUpdate:
        """Write one part of the update of the round after ``base``, unless it was written before.

        Raises :class:`WorkerError` when the training left numbers that cannot be used, or is not of
        this base.
        """
        key = self._key(base, part, parts)
        try:
            with trained.reading:
                if self._feedback is None:
                    written = self._find_or_save(base, key, trained, done)
                else:
                    written = self._save_all(self._feedback, base, key, trained, done)
        except StaleMemoryError as error:
            raise WorkerError(f"the training is not of this round's base: {error}") from error
        self._paths |= {written.blob.path}
        return written

    def prepare(self, base: State, paths: Collection[str]) -> None:
        """The state after ``base`` is about to be made from the files at ``paths``."""
        if self._feedback is not None:
            self._recall(base, 1)
            committed = not self._paths.isdisjoint(paths)
            self._feedback.prepare(base.round + 1, committed=committed)

    def prepare_parts(self, base: State, parts: int, averaged: Collection[int]) -> None:
        """The same in all-reduce, of these parts. Their owners had the update in hand; what it has
        of the other parts is left over, where that stays."""
        if self._feedback is None:
            return
        self._recall(base, parts)
        missing = {key for key in self._written if key.part not in averaged}
        with contextlib.ExitStack() as stack:
            blocks: list[Block] = []
            if missing and self._rules.left_over_stays:
                for key, one in self._written.items():
                    codec, read = self._codec(key), None
                    if key in missing:
                        read = stack.enter_context(codec.open(Path(one.blob.path))).read
                    blocks += _blocks_of(codec.segments, read)
                blocks += _blocks_of(self._not_exchanged(base.round + 1), None)
            self._feedback.prepare(base.round + 1, committed=True, given_back=blocks)

    def prepare_takeover(self, base: State, round_number: int) -> None:
        """In place of ``base``, the state of ``round_number`` is about to be taken from others.

        Where left-overs stay, this peer's update counts as averaged if that state is later than
        it: learning that is lost does less harm than such that counts twice.
        """
        if self._feedback is not None:
            committed = (
                self._rules.left_over_stays
                and base.round < round_number
                and self._feedback.take_pending(base.round + 1)
            )
            self._feedback.prepare(round_number, committed=committed)

    def settle(self, round_number: int) -> None:
        """The state that was prepared for is there."""
        if self._feedback is not None:
            self._feedback.settle(round_number)
        self._forget()

    def close(self) -> None:
        """Close all files."""
        self._updates.close()
        if self._feedback is not None:
            self._feedback.close()

    def _recall(self, base: State, parts: int) -> None:
        """A process that died since it wrote the update finds it again."""
        if not any(key.parts == parts for key in self._written):
            self.find(base, parts)

    def _forget(self) -> None:
        self._paths = frozenset()
        self._written = {}

    def _codec(self, key: UpdateKey) -> UpdateCodec:
        place = self._rules.place_of(key.round, key.part, key.parts)
        return UpdateCodec(self._manifest, self._rules.encoding, *place)

    def _key(self, base: State, part: int, parts: int) -> UpdateKey:
        return UpdateKey(base.round + 1, base.blob.root, part, parts)

    def _find_or_save(
        self, base: State, key: UpdateKey, trained: TrainedModel, done: WorkDone
    ) -> OwnUpdate:
        codec = self._codec(key)
        found = self._updates.find(key, codec.layout)
        if found is not None:
            return found

        def fill(writer: TensorSink) -> None:
            codec.fill(writer, lambda *block: self._movement(base, trained, *block), None)

        return self._updates.save(key, codec.layout, fill, done)

    def _save_all(
        self,
        feedback: ErrorFeedback,
        base: State,
        key: UpdateKey,
        trained: TrainedModel,
        done: WorkDone,
    ) -> OwnUpdate:
        """Write all parts at once, since what they leave over is one file; nobody hears of one
        before that is whole."""
        if key not in self._written:

            def movement(spec: TensorSpec, start: int, stop: int) -> AnyArray:
                values = self._movement(base, trained, spec, start, stop)
                if not spec.has_momentum:
                    return values
                return feedback.add_to(spec, start, values.astype(np.float32, copy=False))

            def save(residual: TensorSink) -> None:
                self._written = {}
                for part in range(key.parts):
                    one = key._replace(part=part)
                    codec = self._codec(one)

                    def fill(writer: TensorSink, codec: UpdateCodec = codec) -> None:
                        codec.fill(writer, movement, residual.write)

                    self._written[one] = self._updates.save(one, codec.layout, fill, done)
                for spec, start, stop, _ in _blocks_of(self._not_exchanged(key.round), None):
                    residual.write(spec.name, start, movement(spec, start, stop))

            feedback.write_pending(key.round, save)
        return self._written[key]

    def _not_exchanged(self, round_number: int) -> Iterator[Segment]:
        """What of the parameters a round leaves to other rounds."""
        mine, count = self._rules.place_of(round_number, 0, 1)
        grain = self._rules.encoding.block_elements
        for fragment in range(count):
            if fragment != mine:
                segments = segments_of(self._manifest, fragment, count, grain)
                yield from (one for one in segments if one.spec.has_momentum)

    def _movement(
        self, base: State, trained: TrainedModel, spec: TensorSpec, start: int, stop: int
    ) -> AnyArray:
        """Pseudo-gradients; integers, and in gossip all, as they are."""
        values = trained.read(spec, start, stop)
        if not spec.is_float or self._rules.mixing is not None:
            return trained_values(spec, values)
        began = trained.read_origin if trained.began_elsewhere else base.read
        return pseudo_gradient(spec, began(spec, start, stop), values)


def _blocks_of(segments: Iterable[Segment], read: ReadBlock | None) -> list[Block]:
    """Of the parameters in these segments."""
    return [
        (segment.spec, start, stop, read)
        for segment in segments
        if segment.spec.has_momentum
        for start, stop in segment.blocks()
    ]
