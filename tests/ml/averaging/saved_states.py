"""Checkpoints of states in which all numbers are one. Without torch, which takes seconds to load in
each process that a test starts."""

from pathlib import Path

import numpy as np

from ml.state.checkpoint import CheckpointStore
from ml.state.manifest import Manifest, TensorSpec
from ml.state.state import State, blocks_of, tensor_name
from ml.state.tensor_file import TensorSink
from ml.state.tensor_store import Fill

MANIFEST = Manifest(
    (
        TensorSpec("bias", "F32", (300,), "parameter"),
        TensorSpec("weight", "F32", (300, 300), "parameter"),
    )
)


def open_store(directory: Path) -> CheckpointStore:
    return CheckpointStore(directory, MANIFEST, keeps_momentum=False)


def filled_with(number: float) -> Fill:
    def fill(writer: TensorSink) -> None:
        for spec in MANIFEST.tensors:
            for start, stop in blocks_of(spec):
                writer.write(tensor_name(spec), start, np.full(stop - start, number, np.float32))

    return fill


def numbers_in(state: State) -> set[float]:
    return {
        number
        for spec in MANIFEST.tensors
        for number in np.unique(state.read(spec, 0, spec.element_count)).tolist()
    }


def latest(directory: Path) -> State:
    state = open_store(directory).latest()
    assert state is not None
    return state
