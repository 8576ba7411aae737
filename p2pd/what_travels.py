"""Which of a model's tensors travel between peers, and which are only compared.

A tensor travels if training changes it: every parameter that requires a gradient, and every buffer
that the first steps were seen to change, such as running statistics. The rest stays on its
machine and is compared by its digest: the base under an adapter, a mask, a table of constants.

    watch = Watch(model)
    ...                       # a few training steps
    still = watch.still()     # the names of what stays

Where no steps can be watched, :func:`still_by_kind` tells from the model alone.

>>> base, adapter = nn.Linear(2, 2), nn.Linear(2, 1)
>>> base = base.requires_grad_(False)
>>> model = nn.Sequential(base, adapter)
>>> still = still_by_kind(model)
>>> sorted(still)
['0.bias', '0.weight']
>>> [name for name, dtype, shape, kind in describe(model, still)]
['1.bias', '1.weight']
>>> describe(base, still_by_kind(base))
Traceback (most recent call last):
p2pd.what_travels.UnusableModelError: the model has no parameter that requires a gradient
"""

import ctypes
import hashlib
from collections.abc import Collection, Iterable

import torch
from torch import nn
from torch.nn.parameter import is_lazy

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
"""What tensors that travel may be, by the names that safetensors has for them."""

MAX_MAGNITUDE = 1e12
"""No number that travels is larger (ml/update/encoding.py)."""
BLOCK_ELEMENTS = 1 << 22
"""How much of a tensor is worked on at once: 16 MiB of float32."""

Description = tuple[str, str, tuple[int, ...], str]
"""Name, dtype, shape; then a tensor's kind if it travels, and its digest if it does not."""


class UnusableModelError(ValueError):
    """A model has a tensor that cannot be exchanged."""


class Watch:
    """What a model was before some steps, to be asked afterwards what they changed."""

    def __init__(self, model: nn.Module) -> None:
        """Raises :class:`UnusableModelError`."""
        self._model = model
        self._before = _kinds(model)
        self._digests = {
            name: digest_of(tensor)
            for name, tensor in tensors_of(model).items()
            if not is_trained(tensor)
        }

    def still(self, moving: Collection[str] = ()) -> frozenset[str]:
        """The names of the tensors that the steps left as they were.

        ``moving``: names of buffers that change later. Raises :class:`UnusableModelError` naming
        the tensor, where the steps made another model: other names, shapes or kinds.
        """
        check_same_model(self._before, _kinds(self._model), "the first steps")
        tensors = tensors_of(self._model)
        unknown = set(moving) - set(tensors)
        if unknown:
            raise UnusableModelError(
                f"the model has no buffer {min(unknown)}, which is said to change"
            )
        moved = {name for name, one in self._digests.items() if digest_of(tensors[name]) != one}
        for name in sorted(moved):
            if isinstance(tensors[name], nn.Parameter):
                raise UnusableModelError(
                    f"{name} is a parameter that requires no gradient, and training changes it:"
                    " make it a buffer (register_buffer), so that it is averaged"
                )
            _check_magnitude(name, tensors[name])
        return frozenset(self._digests.keys() - moved - set(moving))


def still_by_kind(model: nn.Module) -> frozenset[str]:
    """The names of what is taken for constant where no steps were watched: parameters that require
    no gradient, and buffers that could not travel, such as masks with infinity in them."""
    return frozenset(
        name
        for name, tensor in tensors_of(model).items()
        if not is_trained(tensor)
        and (
            isinstance(tensor, nn.Parameter)
            or _shares_memory_with_itself(tensor)
            or not is_within_magnitude(tensor)
        )
    )


def is_trained(tensor: torch.Tensor) -> bool:
    """Whether it is a parameter that requires a gradient."""
    return isinstance(tensor, nn.Parameter) and tensor.requires_grad


def travelling(model: nn.Module, still: Collection[str]) -> dict[str, torch.Tensor]:
    """The model's own tensors that travel, by name, sorted."""
    return {name: one for name, one in tensors_of(model).items() if name not in still}


def describe(model: nn.Module, still: Collection[str] = ()) -> list[Description]:
    """Name, dtype, shape and kind of each tensor that travels, as in :class:`p2pd.messages.Opened`.

    Raises :class:`UnusableModelError`.
    """
    found = []
    for name, tensor in travelling(model, still).items():
        if tensor.dtype not in DTYPE_NAMES:
            raise UnusableModelError(f"{name} is of {tensor.dtype}, which cannot be exchanged")
        if _shares_memory_with_itself(tensor):
            raise UnusableModelError(
                f"{name} has several elements in one place of memory, as expand() makes them: call"
                " .clone() on it in model()"
            )
        _check_magnitude(name, tensor)
        kind = "parameter" if is_trained(tensor) else "buffer"
        found.append((name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), kind))
    if not any(kind == "parameter" for _, _, _, kind in found):
        some = any(isinstance(one, nn.Parameter) for one in tensors_of(model).values())
        problem = "no parameter that requires a gradient" if some else "no parameters to train"
        raise UnusableModelError(f"the model has {problem}")
    return found


def describe_still(model: nn.Module, still: Collection[str]) -> list[Description]:
    """Name, dtype, shape and SHA-256 (hex) of each tensor that does not travel."""
    return [
        describe_one_still(name, tensor)
        for name, tensor in tensors_of(model).items()
        if name in still
    ]


def describe_one_still(name: str, tensor: torch.Tensor) -> Description:
    """The same of one of them."""
    return name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), digest_of(tensor)


def digest_of(tensor: torch.Tensor) -> str:
    """SHA-256 in hex of a tensor's elements in their order, as they lie in memory."""
    digest = hashlib.sha256()
    for block in blocks_of(tensor):
        digest.update(bytes_of(block))
    return digest.hexdigest()


def blocks_of(tensor: torch.Tensor) -> Iterable[torch.Tensor]:
    """A tensor's elements, flat, some at a time, on the CPU and contiguous."""
    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), BLOCK_ELEMENTS):
        yield flat[start : start + BLOCK_ELEMENTS].to("cpu").contiguous()


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, as long as that lives."""
    size_bytes = tensor.numel() * tensor.element_size()
    if not size_bytes:
        return memoryview(b"")
    return memoryview((ctypes.c_char * size_bytes).from_address(tensor.data_ptr())).cast("B")


def is_within_magnitude(tensor: torch.Tensor) -> bool:
    """Whether all of a tensor's numbers, as far as they are in this process, could travel."""
    if not tensor.dtype.is_floating_point:
        return True
    if hasattr(tensor, "to_local"):  # a DTensor, of which FSDP2 gives each rank a part
        tensor = tensor.to_local()
    return all(bool((block.abs() <= MAX_MAGNITUDE).all()) for block in blocks_of(tensor))


def _check_magnitude(name: str, tensor: torch.Tensor) -> None:
    if not is_within_magnitude(tensor):
        raise UnusableModelError(
            f"training changes {name}, which has infinity, NaN or numbers above"
            f" {MAX_MAGNITUDE:g} in it, so it cannot be averaged: register it with"
            " persistent=False, or keep its numbers finite"
        )


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """All of the model's own tensors by name, sorted, tied ones once; the caller writes into them.

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


Kinds = dict[str, tuple[str, tuple[int, ...], bool]]
"""Dtype, shape and whether it requires a gradient, by name."""


def check_same_model(before: Kinds, after: Kinds, what: str) -> None:
    """Raises :class:`UnusableModelError` naming the first tensor in which they differ."""
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if old is None:
            raise UnusableModelError(
                f"{name} is there only after {what}: make every layer and buffer in model()"
            )
        if new is None:
            raise UnusableModelError(f"{name} is gone after {what}")
        if old[2] != new[2]:
            raise UnusableModelError(
                f"{name} {'requires' if new[2] else 'does not require'} a gradient after {what},"
                " and before it was otherwise: what is trained is decided in model()"
            )
        raise UnusableModelError(
            f"{name} is {new[0]} {list(new[1])} after {what}, and was {old[0]} {list(old[1])}: what"
            " grows cannot be averaged; register it with persistent=False, or give it its full size"
        )


def _kinds(model: nn.Module) -> Kinds:
    return {
        name: (str(one.dtype), tuple(one.shape), is_trained(one))
        for name, one in tensors_of(model).items()
    }


def _shares_memory_with_itself(tensor: torch.Tensor) -> bool:
    sizes_and_steps = zip(tensor.shape, tensor.stride(), strict=True)
    return any(size > 1 and step == 0 for size, step in sizes_and_steps)


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
