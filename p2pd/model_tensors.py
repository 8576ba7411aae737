"""The tensors of a torch model that travel: written into shared memory and read from it."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from p2pd.shared_tensors import Place, SharedLayout, SharedTensors
from p2pd.what_travels import (
    DTYPE_NAMES,
    UnusableModelError,
    blocks_of,
    bytes_of,
    describe,
    travelling,
)

_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


class ModelTensors:
    """One model's own tensors that travel, where they lie in memory that is shared.

    >>> import os
    >>> from p2pd.shared_tensors import NO_ROOT
    >>> descriptor = os.memfd_create("local")
    >>> memory, model = SharedTensors(descriptor), nn.Linear(2, 1, bias=False)
    >>> tensors = ModelTensors(model)
    >>> tensors.description
    [('weight', 'F32', (1, 2), 'parameter')]
    >>> tensors.write(memory, round_number=1, root=NO_ROOT)
    >>> other = ModelTensors(nn.Linear(2, 1, bias=False))
    >>> other.read(memory, round_number=1, root=NO_ROOT)
    >>> torch.equal(other.model.weight, model.weight)
    True
    >>> os.close(descriptor)
    """

    def __init__(self, model: nn.Module, still: Collection[str] = ()) -> None:
        """``still``: names of the tensors that do not travel (p2pd/what_travels.py).

        Raises :class:`UnusableModelError`.
        """
        self.model = model
        self.still = frozenset(still)
        self.description = describe(model, self.still)
        self.layout = SharedLayout(
            [(name, dtype, shape) for name, dtype, shape, _ in self.description]
        )

    def own(self) -> dict[str, torch.Tensor]:
        """The model's tensors that travel, by name; the caller writes into them.

        Raises :class:`UnusableModelError` where the model has become another one.
        """
        tensors = travelling(self.model, self.still)
        for name, _, shape, _ in self.description:
            there = tuple(tensors[name].shape) if name in tensors else "not there"
            if there != shape:
                raise UnusableModelError(f"{name} was {list(shape)}, and now is {there}")
        return tensors

    def read(self, memory: SharedTensors, round_number: int, root: bytes) -> None:
        """Make the model's tensors those in ``memory``, one after the other.

        Raises :class:`p2pd.shared_tensors.StaleMemoryError`; the model then holds nothing of use.
        """
        tensors = self.own()
        with torch.no_grad(), memory.reading(round_number, root):
            for name, place in self.layout.places.items():
                tensor = tensors[name]
                if _lies_as(tensor, place):
                    memory.read(place.offset, bytes_of(tensor))
                else:
                    tensor.copy_(self.read_one(memory, name).reshape(tensor.shape))

    def read_one(self, memory: SharedTensors, name: str) -> torch.Tensor:
        """One tensor, flat, as it lies in ``memory``; a new one that the caller owns."""
        place = self.layout.places[name]
        dtype = torch.float32 if place.dtype == "F32" else _DTYPES[place.dtype]
        values = torch.empty(place.size_bytes // dtype.itemsize, dtype=dtype)
        memory.read(place.offset, bytes_of(values))
        return values

    def write(self, memory: SharedTensors, round_number: int, root: bytes) -> None:
        """Write the model's tensors into ``memory``. Raises :class:`OSError` where it is full."""
        self.write_copies(self.own(), memory, round_number, root)

    def write_copies(
        self, tensors: Mapping[str, Any], memory: SharedTensors, round_number: int, root: bytes
    ) -> None:
        """The same with other tensors than the model's own, of the same kind."""
        with memory.writing(self.layout, round_number, root):
            for name, place in self.layout.places.items():
                _write_one(tensors[name], memory, place.offset)


def _write_one(tensor: torch.Tensor, memory: SharedTensors, offset: int) -> None:
    """In a function of its own: nothing of a tensor is held when the next one is made whole."""
    for block in blocks_of(tensor):
        values = block.to(torch.float32) if block.dtype.is_floating_point else block
        data = bytes_of(values)
        memory.write(offset, data)
        offset += len(data)


def _lies_as(tensor: torch.Tensor, place: Place) -> bool:
    """Whether the tensor's own memory is, byte for byte, as the shared one."""
    is_plain = tensor.device.type == "cpu" and tensor.is_contiguous()
    return is_plain and DTYPE_NAMES[tensor.dtype] == place.dtype
