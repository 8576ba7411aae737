"""The model manifest: which tensors a model has. Peers compare its digest; no tensor is believed
that does not fit it.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import nn
from torch.nn.parameter import is_lazy

from protocol.codec import Message, encode
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

NUMPY_DTYPES: Mapping[str, DTypeLike] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
"""How tensors lie in files. NumPy has no BF16; its bits stand as integers (in exports only)."""


class TensorSpec(Message):
    """One tensor of the model."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: Literal["parameter", "buffer"]

    @property
    def is_float(self) -> bool:
        """Float tensors are float32 in states and updates, whatever the model computes with."""
        return self.dtype in ("F64", "F32", "F16", "BF16")

    @property
    def has_momentum(self) -> bool:
        """Whether the outer optimizer keeps a momentum for it."""
        return self.is_float and self.kind == "parameter"

    @property
    def element_count(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


class Manifest(Message):
    """All tensors of a model, sorted by name; tied tensors once, under the first of their names."""

    tensors: tuple[TensorSpec, ...]

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical encoding."""
        return hashlib.sha256(b"p2pd manifest v1\x00" + encode(self)).digest()

    @property
    def parameter_count(self) -> int:
        """How many numbers the model learns."""
        return sum(spec.element_count for spec in self.tensors if spec.kind == "parameter")

    def as_text(self) -> str:
        """A table for people, one tensor a line."""
        width = max((len(spec.name) for spec in self.tensors), default=0)
        lines = [
            f"{spec.name:{width}}  {spec.dtype:4}  {spec.kind:9}  {list(spec.shape)}"
            for spec in self.tensors
        ]
        count = f"{len(self.tensors)} tensors, {self.parameter_count:,} parameters"
        return "\n".join([*lines, count, f"digest {self.digest.hex()}"])


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


def file_dtype(spec: TensorSpec) -> str:
    """The dtype of ``spec`` in states and updates: float32 for every float, its own otherwise."""
    return "F32" if spec.is_float else spec.dtype


def numpy_dtype(name: str) -> np.dtype[np.generic]:
    """The NumPy dtype of a safetensors dtype, little-endian as in files."""
    return np.dtype(NUMPY_DTYPES[name])


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
