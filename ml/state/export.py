"""The current model for others to use: plain safetensors, with every name that the model has."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ml.state.manifest import numpy_dtype
from ml.state.model_tensors import tensors_of, tied_names
from ml.state.state import State, blocks_of
from ml.state.tensor_file import AnyArray, FileTensor, TensorWriter, layout_of
from ml.state.tensor_store import write_to_disk
from protocol.errors import ConfigError


def export_state(state: State, model: nn.Module, path: Path, metadata: Mapping[str, str]) -> int:
    """Write the tensors of ``state`` for ``model.load_state_dict``; the size of the file in bytes.

    In the model's own dtypes, tied tensors under each of their names. ``model`` tells names and
    dtypes only. Raises :class:`ConfigError` when the file cannot be written.
    """
    dtypes = {name: tensor.dtype for name, tensor in tensors_of(model).items()}
    names: dict[str, list[str]] = {name: [name] for name in dtypes}
    for name, first in tied_names(model).items():
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

    def fill(writer: TensorWriter) -> None:
        for spec in state.manifest.tensors:
            for start, stop in blocks_of(spec):
                block = _in_dtype(state.read(spec, start, stop), dtypes[spec.name])
                for name in names[spec.name]:
                    writer.write(name, start, block.view(numpy_dtype(spec.dtype)))

    try:
        blob, file = write_to_disk(path.parent, lambda root: path.name, layout, fill)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
    file.close()
    return blob.size_bytes


def _in_dtype(values: AnyArray, dtype: torch.dtype) -> AnyArray:
    """``values`` as the model has them; bfloat16 as its bits, which is how NumPy can hold them."""
    converted = torch.from_numpy(values).to(dtype)
    if dtype == torch.bfloat16:
        converted = converted.view(torch.int16)
    array: AnyArray = converted.numpy()
    return array
