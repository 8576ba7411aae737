"""A round's end: the base and what its updates say become the next state, block by block.

>>> from ml.state.state import state_layout
>>> from ml.state.tensor_store import write_to_memory
>>> from ml.update.parts import segments_of
>>> manifest = Manifest((TensorSpec("w", "F32", (2,), "parameter"),))
>>> layouts = [state_layout(manifest, number, keeps_momentum=False) for number in (0, 1)]
>>> blob, file = write_to_memory(
...     layouts[0], fill_mixed_state(manifest, lambda spec, start, stop: np.float32([1, 2])))
>>> base = State(manifest, 0, False, blob, file)
>>> piece = Piece(segments_of(manifest, 0, 1, 1), lambda spec, start, stop: np.float32([1, 1]))
>>> fill = fill_next_state(base, OuterOptimizer(learning_rate=0.5, momentum=0.0), [piece])
>>> _, following = write_to_memory(layouts[1], fill)
>>> following.read("model/w")
array([0.5, 1.5], dtype=float32)
>>> base.close(), following.close()
(None, None)
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ml.aggregate.outer_optimizer import OuterOptimizer
from ml.state.manifest import Manifest, TensorSpec
from ml.state.state import State, blocks_of, momentum_name, tensor_name
from ml.state.tensor_file import AnyArray, TensorSink
from ml.state.tensor_store import Fill
from ml.update.codec import ReadBlock
from ml.update.parts import Segment


class Piece(NamedTuple):
    """A part of the model and its aggregated update, as it is in an update's file."""

    segments: Sequence[Segment]
    read: ReadBlock | None
    """Reads the update; None: there is none, and the part and its momentum stay as they are."""


def fill_next_state(
    base: State,
    outer: OuterOptimizer,
    pieces: Sequence[Piece],
    on_block: Callable[[], None] = lambda: None,
) -> Fill:
    """Writes the state after ``base``; the pieces together are the whole model."""

    def fill(writer: TensorSink) -> None:
        for piece in pieces:
            for segment in piece.segments:
                for start, stop in segment.blocks():
                    update = piece.read and piece.read(segment.spec, start, stop)
                    _write_block(writer, base, outer, segment.spec, start, stop, update)
                    on_block()

    return fill


def fill_mixed_state(manifest: Manifest, mixed: ReadBlock) -> Fill:
    """Writes a state out of parameters and buffers; it has no momentum."""

    def fill(writer: TensorSink) -> None:
        for spec in manifest.tensors:
            for start, stop in blocks_of(spec):
                writer.write(tensor_name(spec), start, mixed(spec, start, stop))

    return fill


def _write_block(
    writer: TensorSink,
    base: State,
    outer: OuterOptimizer,
    spec: TensorSpec,
    start: int,
    stop: int,
    update: AnyArray | None,
) -> None:
    if not spec.is_float:
        values = base.read(spec, start, stop) if update is None else update
        writer.write(tensor_name(spec), start, values)
        return
    floats = base.read(spec, start, stop).astype(np.float32, copy=False)
    velocity = None
    if spec.has_momentum and outer.momentum:
        velocity = base.read_momentum(spec, start, stop).astype(np.float32, copy=False)
    if update is not None:
        gradient = update.astype(np.float32, copy=False)
        if spec.has_momentum:
            floats, velocity = outer.step(floats, velocity, gradient)
        else:
            floats = floats - gradient
    writer.write(tensor_name(spec), start, floats)
    if velocity is not None:
        writer.write(momentum_name(spec), start, velocity)
