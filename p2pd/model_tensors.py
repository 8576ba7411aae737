"""A torch model's tensors: what they are, written into shared memory and read from it."""

import ctypes
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from p2pd.shared_tensors import Place, SharedLayout, SharedTensors

DTYPE_NAMES = {
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
"""The types that a model's tensors may have, by the names in safetensors."""

BLOCK_ELEMENTS = 1 << 22
"""How much of a tensor is copied at once: 16 MiB of float32."""


class UnusableModelError(ValueError):
    """A model has a tensor that cannot be exchanged."""


class ModelTensors:
    """One model's own tensors, where they lie in memory that is shared."""

    def __init__(self, model: nn.Module) -> None:
        """Raises :class:`UnusableModelError`."""
        self.model = model
        self.description = describe(model)
        self.layout = SharedLayout(
            [(name, dtype, shape) for name, dtype, shape, _ in self.description]
        )

    def read(self, memory: SharedTensors, round_number: int, root: bytes) -> None:
        """Make the model's tensors those in ``memory``, one after the other.

        Raises :class:`p2pd.shared_tensors.StaleMemoryError`; the model then holds nothing of use.
        """
        tensors = tensors_of(self.model)
        with torch.no_grad(), memory.reading(round_number, root):
            for name, place in self.layout.places.items():
                tensor = tensors[name]
                if _lies_as(tensor, place):
                    memory.read(place.offset, _memory_of(tensor))
                else:
                    tensor.copy_(self.read_one(memory, name).reshape(tensor.shape))

    def read_one(self, memory: SharedTensors, name: str) -> torch.Tensor:
        """One tensor, flat, as it lies in ``memory``; a new one that the caller owns."""
        place = self.layout.places[name]
        dtype = torch.float32 if place.dtype == "F32" else _DTYPES[place.dtype]
        values = torch.empty(place.size_bytes // dtype.itemsize, dtype=dtype)
        memory.read(place.offset, _memory_of(values))
        return values

    def write(self, memory: SharedTensors, round_number: int, root: bytes) -> None:
        """Write the model's tensors into ``memory``. Raises :class:`OSError` where it is full."""
        self.write_copies(tensors_of(self.model), memory, round_number, root)

    def write_copies(
        self, tensors: dict[str, Any], memory: SharedTensors, round_number: int, root: bytes
    ) -> None:
        """The same with other tensors than the model's own, of the same kind."""
        with memory.writing(self.layout, round_number, root):
            for name, place in self.layout.places.items():
                flat = tensors[name].detach().reshape(-1)
                offset = place.offset
                for start in range(0, flat.numel(), BLOCK_ELEMENTS):
                    block = flat[start : start + BLOCK_ELEMENTS]
                    if block.dtype.is_floating_point:
                        block = block.to(torch.float32)
                    block = block.to("cpu").contiguous()
                    data = _memory_of(block)
                    memory.write(offset, data)
                    offset += len(data)


def describe(model: nn.Module) -> list[tuple[str, str, tuple[int, ...], str]]:
    """Name, dtype, shape and kind of each tensor, as :class:`p2pd.messages.Opened` has them.

    Raises :class:`UnusableModelError`.
    """
    found = []
    for name, tensor in tensors_of(model).items():
        if tensor.dtype not in DTYPE_NAMES:
            raise UnusableModelError(f"{name} is of {tensor.dtype}, which cannot be exchanged")
        kind = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
        found.append((name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), kind))
    if not any(kind == "parameter" for _, _, _, kind in found):
        raise UnusableModelError("the model has no parameters to train")
    return found


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's own tensors by name, sorted, tied ones once; the caller writes into them.

    Parameters and persistent buffers, that is, what ``state_dict`` has. Raises
    :class:`UnusableModelError`.
    """
    seen: set[int] = set()
    tensors = {}
    for name, tensor in _state_items(model):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors


def tied_names(model: nn.Module) -> dict[str, str]:
    """Every further name of a tied tensor, with the name that :func:`tensors_of` has for it."""
    first: dict[int, str] = {}
    return {
        name: known
        for name, tensor in _state_items(model)
        if (known := first.setdefault(id(tensor), name)) != name
    }


_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


def _lies_as(tensor: torch.Tensor, place: Place) -> bool:
    """Whether the tensor's own memory is, byte for byte, as the shared one."""
    is_plain = tensor.device.type == "cpu" and tensor.is_contiguous()
    return is_plain and DTYPE_NAMES[tensor.dtype] == place.dtype


def _memory_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, as long as that lives."""
    size_bytes = tensor.numel() * tensor.element_size()
    if not size_bytes:
        return memoryview(b"")
    return memoryview((ctypes.c_char * size_bytes).from_address(tensor.data_ptr())).cast("B")


def _state_items(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    items = model.state_dict(keep_vars=True).items()
    for name, value in items:
        if not isinstance(value, torch.Tensor):
            raise UnusableModelError(f"{name} in its state_dict is no tensor")
        if is_lazy(value):
            raise UnusableModelError(
                f"{name} has no shape so far: call a lazy module once inside model()"
            )
        if value.is_meta or value.layout != torch.strided:
            raise UnusableModelError(f"{name} is not an ordinary dense tensor")
    return sorted(items)
