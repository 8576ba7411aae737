"""The state that a round starts from: parameters, buffers, outer momentum, round number.

A state is a file in the canonical form of ml/state/tensor_file.py, and the Merkle root of that file
is *the* digest of the state. Round 0 has no momentum in its file (it would be zero), so its digest
follows from the task and the seed alone, whatever the swarm's settings.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ml.state.blob import Blob
from ml.state.manifest import Manifest, TensorSpec, file_dtype
from ml.state.tensor_file import (
    AnyArray,
    FileTensor,
    TensorFile,
    TensorLayout,
    TensorSink,
    layout_of,
)
from ml.state.tensor_store import Fill
from protocol.errors import VerificationError

MODEL = "model/"
"""What the names of parameters and buffers begin with in a state's file."""
BLOCK_ELEMENTS = 1 << 18
"""How much of a tensor is worked on at once: 1 MiB of float32."""


@dataclass(frozen=True, slots=True)
class State:
    """One round's state, in an open file.

    >>> from ml.state.tensor_store import write_to_memory
    >>> manifest = Manifest((TensorSpec("w", "F32", (2,), "parameter"),))
    >>> layout = state_layout(manifest, 0, keeps_momentum=True)
    >>> blob, file = write_to_memory(
    ...     layout, lambda sink: sink.write("model/w", 0, np.float32([1, 2])))
    >>> state = State(manifest, round=0, has_momentum=False, blob=blob, file=file)
    >>> state.read(manifest.tensors[0], 0, 2), state.read_momentum(manifest.tensors[0], 0, 2)
    (array([1., 2.], dtype=float32), array([0., 0.], dtype=float32))
    >>> state.close()
    """

    manifest: Manifest
    round: int
    has_momentum: bool
    blob: Blob
    file: TensorFile

    def read(self, spec: TensorSpec, start: int, stop: int) -> AnyArray:
        """A block of a parameter or buffer, flat."""
        return self.file.read(tensor_name(spec), start, stop)

    def read_momentum(self, spec: TensorSpec, start: int, stop: int) -> AnyArray:
        """A block of a parameter's outer momentum, flat; zeros where the state has none."""
        if self.has_momentum:
            return self.file.read(momentum_name(spec), start, stop)
        return np.zeros(stop - start, np.float32)

    def close(self) -> None:
        """Close the file. The state is of no use afterwards."""
        self.file.close()


def tensor_name(spec: TensorSpec) -> str:
    """The name of a parameter or buffer in a state's file."""
    return f"{MODEL}{spec.name}"


def momentum_name(spec: TensorSpec) -> str:
    """The name of a parameter's outer momentum in a state's file."""
    return f"momentum/{spec.name}"


def state_layout(manifest: Manifest, round_number: int, *, keeps_momentum: bool) -> TensorLayout:
    """The layout of the state of a round. ``keeps_momentum``: the outer optimizer has momentum."""
    tensors = []
    for spec in manifest.tensors:
        tensors.append(FileTensor(tensor_name(spec), file_dtype(spec), spec.shape))
        if keeps_momentum and round_number > 0 and spec.has_momentum:
            tensors.append(FileTensor(momentum_name(spec), "F32", spec.shape))
    return layout_of(tensors, {"format": "p2pd-state-1", "round": str(round_number)})


def blocks_of(spec: TensorSpec) -> Iterator[tuple[int, int]]:
    """Start and stop of each block of a tensor."""
    count = spec.element_count
    for start in range(0, count, BLOCK_ELEMENTS):
        yield start, min(start + BLOCK_ELEMENTS, count)


def fill_from_file(file: TensorFile, on_block: Callable[[], None]) -> Fill:
    """Writes what a state's file holds.

    It raises :class:`VerificationError` naming the first tensor with NaN or infinity.
    """

    def fill(writer: TensorSink) -> None:
        for tensor in file.layout.tensors.values():
            for start in range(0, tensor.element_count, BLOCK_ELEMENTS):
                stop = min(start + BLOCK_ELEMENTS, tensor.element_count)
                values = file.read(tensor.name, start, stop)
                if tensor.dtype == "F32" and not np.isfinite(values).all():
                    raise VerificationError(f"NaN or infinity in {tensor.name} of the state")
                writer.write(tensor.name, start, values)
                on_block()

    return fill
