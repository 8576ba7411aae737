"""A torch model's tensors as the rest of ml has them: its manifest, and blocks of arrays."""

from collections.abc import Collection

import torch
from torch import nn

from ml.state.manifest import FrozenTensor, Manifest, TensorSpec
from ml.state.state import State, blocks_of, tensor_name
from ml.state.tensor_file import AnyArray, TensorSink
from ml.state.tensor_store import Fill
from p2pd.what_travels import UnusableModelError, describe, describe_still, tensors_of
from protocol.errors import ConfigError


def manifest_of(model: nn.Module, still: Collection[str] = ()) -> Manifest:
    """The manifest of ``model``, in which the tensors named by ``still`` do not travel.

    Raises :class:`ConfigError` for a model without parameters or with tensors that cannot travel.

    >>> manifest_of(nn.Linear(2, 1)).parameter_count
    3
    """
    try:
        return Manifest(
            tuple(
                TensorSpec(name, dtype, shape, "parameter" if kind == "parameter" else "buffer")
                for name, dtype, shape, kind in describe(model, still)
            ),
            tuple(
                FrozenTensor(name, dtype, shape, bytes.fromhex(sha256))
                for name, dtype, shape, sha256 in describe_still(model, still)
            ),
        )
    except UnusableModelError as error:
        raise ConfigError(f"model(): {error}") from error


def fill_from_model(model: nn.Module, manifest: Manifest) -> Fill:
    """Writes round 0's state: the tensors that ``model`` has now."""
    tensors = tensors_of(model)

    def fill(writer: TensorSink) -> None:
        for spec in manifest.tensors:
            for start, stop in blocks_of(spec):
                writer.write(tensor_name(spec), start, model_block(tensors[spec.name], start, stop))

    return fill


def model_block(tensor: torch.Tensor, start: int, stop: int) -> AnyArray:
    """Elements of a model's tensor, flat, as they would be in a state's file; a copy."""
    block = tensor.detach().reshape(-1)[start:stop]
    if block.dtype.is_floating_point:
        block = block.to(torch.float32)
    array: AnyArray = block.to("cpu", copy=True).numpy()
    return array


def load_into_model(state: State, model: nn.Module) -> None:
    """Make ``model``'s tensors those of ``state``, one tensor at a time."""
    tensors = tensors_of(model)
    with torch.no_grad():
        for spec in state.manifest.tensors:
            values = torch.from_numpy(state.read(spec, 0, spec.element_count))
            tensors[spec.name].copy_(values.reshape(spec.shape))
