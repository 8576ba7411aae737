"""What several updates say together, block by block."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ml.aggregate.aggregation import Plan, Stacks
from ml.state.manifest import TensorSpec
from ml.state.tensor_file import AnyArray
from ml.update.codec import UpdateFile
from ml.update.encoding import Floats


class Average:
    """The average of updates in the order of their peers' ids, all of the same part of the
    model.

    >>> from ml.aggregate.aggregation import parse_aggregation
    >>> from ml.state.manifest import Manifest
    >>> from ml.state.tensor_store import write_to_memory
    >>> from ml.update.codec import UpdateCodec, parse_encoding
    >>> manifest = Manifest((TensorSpec("w", "F32", (2,), "parameter"),))
    >>> codec = UpdateCodec(manifest, parse_encoding("none"))
    >>> def update(*numbers):
    ...     read = lambda spec, start, stop: np.float32(numbers)[start:stop]
    ...     _, file = write_to_memory(codec.layout, lambda sink: codec.fill(sink, read, None))
    ...     return UpdateFile(codec, file)
    >>> with update(1, 2) as one, update(3, 6) as other:
    ...     mean = parse_aggregation("mean", max_sample_weight=1000)
    ...     average = Average([one, other], lambda stacks: mean.plan([10, 10], stacks))
    ...     average.read(manifest.tensors[0], 0, 2)
    array([2., 4.], dtype=float32)
    """

    def __init__(self, updates: Sequence[UpdateFile], plan_of: Callable[[Stacks], Plan]) -> None:
        """``plan_of`` makes the rule's plan; it may go through all updates to make it.

        Raises what that raises, and :class:`VerificationError` for an update that is not sound.
        """
        self._updates = updates
        self._plan = plan_of(self._parameter_stacks)

    def read(self, spec: TensorSpec, start: int, stop: int) -> AnyArray:
        """A block. Counters and the like: the largest, since a mean would be nobody's count.

        Raises :class:`VerificationError`.
        """
        if spec.is_float:
            stack = self._stack(spec, start, stop)
            return self._plan.parameters(stack) if spec.has_momentum else self._plan.buffers(stack)
        largest = self._updates[0].read(spec, start, stop)
        for update in self._updates[1:]:
            largest = np.maximum(largest, update.read(spec, start, stop))
        return largest

    def _stack(self, spec: TensorSpec, start: int, stop: int) -> Floats:
        stack = np.empty((len(self._updates), stop - start), np.float32)
        for row, update in zip(stack, self._updates, strict=True):
            update.read_into(row, spec, start, stop)
        return stack

    def _parameter_stacks(self) -> Iterator[Floats]:
        for segment in self._updates[0].segments:
            if segment.spec.has_momentum:
                for start, stop in segment.blocks():
                    yield self._stack(segment.spec, start, stop)
