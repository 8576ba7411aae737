"""A torch model's tensors: what the manifest says of them, read from it, written into it.

The only module of this room that loads torch.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ml.state.manifest import Manifest, TensorSpec
from ml.state.state import State, blocks_of, tensor_name
from ml.state.tensor_file import AnyArray, TensorWriter
from ml.state.tensor_store import Fill
from protocol.errors import ConfigError

DTYPE_NAMES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What a model's tensors may be, by the names that safetensors has for them."""


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's own tensors by name, sorted, tied ones once; the caller writes into them.

    Parameters and persistent buffers, that is, what ``state_dict`` has.
    """
    seen: set[int] = set()
    tensors = {}
    for name, tensor in _state_items(model):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors


def tied_names(model: nn.Module) -> dict[str, str]:
    """Every further name of a tied tensor, with the name that the manifest has for it."""
    first: dict[int, str] = {}
    return {
        name: known
        for name, tensor in _state_items(model)
        if (known := first.setdefault(id(tensor), name)) != name
    }


def manifest_of(model: nn.Module) -> Manifest:
    """The manifest of ``model``.

    Raises :class:`ConfigError` for a model without parameters or with tensors that cannot travel.
    """
    specs = []
    for name, tensor in tensors_of(model).items():
        if tensor.dtype not in DTYPE_NAMES:
            raise ConfigError(f"model(): {name} is of {tensor.dtype}, which cannot be exchanged")
        kind: Literal["parameter", "buffer"] = (
            "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
        )
        specs.append(TensorSpec(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), kind))
    if not any(spec.kind == "parameter" for spec in specs):
        raise ConfigError("model(): the model has no parameters to train")
    return Manifest(tuple(specs))


def fill_from_model(model: nn.Module, manifest: Manifest) -> Fill:
    """Writes round 0's state: the tensors that ``model`` has now."""
    tensors = tensors_of(model)

    def fill(writer: TensorWriter) -> None:
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


def _state_items(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    items = model.state_dict(keep_vars=True).items()
    for name, value in items:
        if not isinstance(value, torch.Tensor):
            raise ConfigError(f"model(): {name} in its state_dict is no tensor")
        if is_lazy(value):
            raise ConfigError(
                f"model(): {name} has no shape so far: call a lazy module once inside model()"
            )
        if value.is_meta or value.layout != torch.strided:
            raise ConfigError(f"model(): {name} is not an ordinary dense tensor")
    return sorted(items)
