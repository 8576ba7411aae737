"""A round's end: committed updates and the base become the next state, block by block."""

from collections.abc import Iterator, Sequence

import numpy as np

from ml.aggregate import Aggregation, Plan
from ml.encoding import Floats
from ml.manifest import TensorSpec
from ml.outer_optimizer import OuterOptimizer
from ml.state import State, blocks_of, momentum_name, tensor_name
from ml.tensor_file import AnyArray, TensorWriter
from ml.tensor_store import Fill
from ml.update_codec import UpdateFile


class NextState:
    """Computes the state after ``base`` from updates in the order of their peers' ids."""

    def __init__(
        self,
        base: State,
        updates: Sequence[UpdateFile],
        sample_counts: Sequence[int],
        aggregation: Aggregation,
        outer: OuterOptimizer,
    ) -> None:
        self._base = base
        self._updates = updates
        self._sample_counts = sample_counts
        self._aggregation = aggregation
        self._outer = outer

    def fill(self) -> Fill:
        """Writes the next state; without updates that is the base, carried over.

        Raises :class:`VerificationError` for an update that cannot be used, now or while writing.
        """
        plan = None
        if self._updates:
            plan = self._aggregation.plan(self._sample_counts, self._parameter_stacks)

        def fill(writer: TensorWriter) -> None:
            for spec in self._base.manifest.tensors:
                for start, stop in blocks_of(spec):
                    self._write_block(writer, plan, spec, start, stop)

        return fill

    def _write_block(
        self, writer: TensorWriter, plan: Plan | None, spec: TensorSpec, start: int, stop: int
    ) -> None:
        base = self._base.read(spec, start, stop)
        if not spec.is_float:
            writer.write(tensor_name(spec), start, self._largest(spec, base, start, stop))
            return
        values = base.astype(np.float32, copy=False)
        velocity = None
        if spec.has_momentum and self._outer.momentum:
            velocity = self._base.read_momentum(spec, start, stop).astype(np.float32, copy=False)
        if plan is not None:
            stack = self._stack(spec, start, stop)
            if not spec.has_momentum:
                values = values - plan.buffers(stack)
            else:
                gradient = plan.parameters(stack)
                values, velocity = self._outer.step(values, velocity, gradient)
        writer.write(tensor_name(spec), start, values)
        if velocity is not None:
            writer.write(momentum_name(spec), start, velocity)

    def _largest(self, spec: TensorSpec, base: AnyArray, start: int, stop: int) -> AnyArray:
        """Counters: the largest of all contributors; a mean of them would be nobody's count."""
        if not self._updates:
            return base
        largest = self._updates[0].read(spec, start, stop)
        for update in self._updates[1:]:
            largest = np.maximum(largest, update.read(spec, start, stop))
        return largest

    def _stack(self, spec: TensorSpec, start: int, stop: int) -> Floats:
        stack = np.empty((len(self._updates), stop - start), np.float32)
        for row, update in zip(stack, self._updates, strict=True):
            row[:] = update.read(spec, start, stop)
        return stack

    def _parameter_stacks(self) -> Iterator[Floats]:
        for spec in self._base.manifest.tensors:
            if spec.has_momentum:
                for start, stop in blocks_of(spec):
                    yield self._stack(spec, start, stop)
