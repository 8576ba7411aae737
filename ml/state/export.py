"""The current model for others to use: plain safetensors, with every name that the model has."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ml.state.half_precision import to_bfloat16
from ml.state.manifest import TensorSpec
from ml.state.state import State, blocks_of
from ml.state.tensor_file import AnyArray, FileTensor, TensorSink, layout_of, numpy_dtype
from ml.state.tensor_store import write_to_disk
from protocol.errors import ConfigError


def export_state(
    state: State, tied: Mapping[str, str], path: Path, metadata: Mapping[str, str]
) -> int:
    """Write the tensors of ``state`` for a model's ``load_state_dict``; the size in bytes.

    In the model's own dtypes, tied tensors under each of their names: ``tied`` has every further
    name, and the manifest's. What does not travel is not in it. What the file holds follows from
    the state alone, so all who hold it write the same bytes. Raises :class:`ConfigError` when the
    file cannot be written.

    >>> import tempfile
    >>> from safetensors.numpy import load_file
    >>> from ml.state.manifest import Manifest
    >>> from ml.state.state import state_layout
    >>> from ml.state.tensor_store import write_to_memory
    >>> manifest = Manifest((TensorSpec("embed", "F16", (2,), "parameter"),))
    >>> blob, file = write_to_memory(
    ...     state_layout(manifest, 0, keeps_momentum=False),
    ...     lambda sink: sink.write("model/embed", 0, np.float32([1, 2])))
    >>> state = State(manifest, 0, False, blob, file)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory) / "model.safetensors"
    ...     size_bytes = export_state(state, {"head": "embed"}, path, {"task": "digits"})
    ...     load_file(path)["head"]
    array([1., 2.], dtype=float16)
    >>> state.close()
    """
    names = {spec.name: [spec.name] for spec in state.manifest.tensors}
    for name, first in tied.items():
        if first in names:  # else it does not travel
            names[first].append(name)
    layout = layout_of(
        sorted(
            (
                FileTensor(name, spec.dtype, spec.shape)
                for spec in state.manifest.tensors
                for name in names[spec.name]
            ),
            key=lambda tensor: tensor.name,
        ),
        {**metadata, "format": "pt", "round": str(state.round), "state": state.blob.root.hex()},
    )

    def fill(writer: TensorSink) -> None:
        for spec in state.manifest.tensors:
            for start, stop in blocks_of(spec):
                block = _in_dtype(spec, state.read(spec, start, stop))
                for name in names[spec.name]:
                    writer.write(name, start, block)

    try:
        blob, file = write_to_disk(path.parent, lambda root: path.name, layout, fill)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
    file.close()
    return blob.size_bytes


def _in_dtype(spec: TensorSpec, values: AnyArray) -> AnyArray:
    """``values`` as the model has them; bfloat16 as its bits, which is how NumPy can hold them."""
    if spec.dtype == "BF16":
        return to_bfloat16(values.astype(np.float32, copy=False))
    with np.errstate(over="ignore"):
        return values.astype(numpy_dtype(spec.dtype), copy=False)
