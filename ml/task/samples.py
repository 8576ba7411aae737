"""Batches out of any dataset: fast where it is made of whole tensors, sample by sample else."""

import copy
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset, default_collate


class Batch(NamedTuple):
    """What a dataset or an iterable gives for one step."""

    value: Any
    """As a rule inputs and targets; what the task's training_step takes where it has one."""
    size: int
    """How many samples it has."""


MAX_TOLD_PARTS = 4
"""The most parts of one item that are named in words."""


class SampleError(Exception):
    """A dataset does not give a sample, or samples that fit together."""


class Samples:
    """Some of a dataset's samples, in batches on one device.

    >>> dataset = TensorDataset(torch.arange(10.0), torch.arange(10) % 2)
    >>> samples = Samples(dataset, np.array([1, 3, 5, 7]), torch.device("cpu"))
    >>> for inputs, targets, count in samples.batches(batch_size=2):
    ...     print(inputs.tolist(), targets.tolist())
    [1.0, 3.0] [1, 1]
    [5.0, 7.0] [1, 1]
    """

    def __init__(self, dataset: Any, indices: NDArray[np.int64], device: torch.device) -> None:
        if _is_plain(dataset) and indices.size < len(dataset):
            # A copy of this peer's samples, so that the memory of all others can go.
            chosen = torch.from_numpy(indices)
            dataset = TensorDataset(*(tensor[chosen] for tensor in dataset.tensors))
            indices = np.arange(indices.size, dtype=np.int64)
        self._dataset = dataset
        self._indices = indices
        self._device = device

    def __len__(self) -> int:
        return int(self._indices.size)

    def head(self, count: int) -> "Samples":
        """The first ``count`` of them."""
        return Samples(self._dataset, self._indices[:count], self._device)

    def take(self, positions: NDArray[np.int64]) -> "Samples":
        """Those at ``positions``, in their order."""
        return Samples(self._dataset, self._indices[positions], self._device)

    def batches(
        self, batch_size: int, order: NDArray[np.int64] | None = None
    ) -> Iterator[tuple[Any, Any, int]]:
        """As :meth:`values`: inputs, targets and how many."""
        for (inputs, targets), count in self.values(batch_size, order):
            yield inputs, targets, count

    def values(self, batch_size: int, order: NDArray[np.int64] | None = None) -> Iterator[Batch]:
        """All samples once, in ``order`` (of positions), in batches of nearly equal size.

        Nearly equal, since a last batch of a single sample breaks batch normalization; where one
        would still be left alone, another batch takes it too. Raises :class:`SampleError`, from
        what went wrong.
        """
        chosen = self._indices if order is None else self._indices[order]
        for part in np.array_split(chosen, batch_count(chosen.size, batch_size)):
            yield self._take(part)

    def _take(self, indices: NDArray[np.int64]) -> Batch:
        if _is_plain(self._dataset):
            where = torch.from_numpy(indices)
            value: Any = tuple(tensor[where] for tensor in self._dataset.tensors)
        else:
            value = self._collate([int(index) for index in indices])
        return Batch(moved(value, self._device), int(indices.size))

    def _collate(self, indices: list[int]) -> Any:
        items = []
        for index in indices:
            try:
                items.append(self._dataset[index])
            except Exception as error:
                raise SampleError(f"item {index} failed") from error
        try:
            return default_collate(items)
        except Exception as error:
            raise SampleError(_why_no_batch(indices, items)) from error


def batch_count(sample_count: int, batch_size: int) -> int:
    """Into how many batches samples are cut."""
    count = -(-sample_count // batch_size)
    one_is_alone = batch_size > 1 and 1 < sample_count < 2 * count
    return count - 1 if one_is_alone else count


def moved(value: Any, device: torch.device) -> Any:
    """``value`` with all tensors in it on ``device``; everything keeps its type."""
    if hasattr(value, "to") and not isinstance(value, type):
        return value.to(device)
    if isinstance(value, Mapping):
        items = {key: moved(item, device) for key, item in value.items()}
        return items if type(value) is dict else _like(value, items)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(item, device) for item in value))
    if isinstance(value, list | tuple):
        items_there = [moved(item, device) for item in value]
        return items_there if type(value) is list else _like(value, items_there)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (one.name for one in dataclasses.fields(value) if one.init)
        return dataclasses.replace(
            value, **{name: moved(getattr(value, name), device) for name in fields}
        )
    return value


def _like(value: Any, items: Any) -> Any:
    """``items`` as the kind of collection that ``value`` is, if it can be made of them."""
    if isinstance(value, MutableMapping):
        # A copy keeps what else it holds, such as a defaultdict's factory.
        filled = copy.copy(value)
        filled.update(items)
        return filled
    try:
        return type(value)(items)
    except TypeError:
        return items


def _is_plain(dataset: Any) -> bool:
    """Whether its tensors are all that it is: a subclass may have another ``__getitem__``."""
    return type(dataset) is TensorDataset


def _why_no_batch(indices: list[int], items: list[Any]) -> str:
    """Says in words which item is unlike most of the others."""
    forms = [_form_of(item) for item in items]
    usual, _ = Counter(forms).most_common(1)[0]
    for index, form in zip(indices, forms, strict=True):
        if form != usual:
            like = indices[forms.index(usual)]
            return f"item {index} is {form}, item {like} {usual}: they do not make a batch"
    return f"items of {usual} do not make a batch"


def _form_of(value: Any) -> str:
    """Types and shapes, as far as samples have to be alike in them."""
    name = type(value).__name__
    if isinstance(value, torch.Tensor | np.ndarray):
        return f"{name}{list(value.shape)}"
    if isinstance(value, list | tuple | dict) and len(value) > MAX_TOLD_PARTS:
        return f"{name}[{len(value)}]"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_form_of, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_form_of(one)}' for key, one in value.items())}}}"
    return name


def labels_of(dataset: Any) -> NDArray[np.int64]:
    """The target of every sample, for partitions that look at classes."""
    if _is_plain(dataset):
        return np.asarray(dataset.tensors[1].cpu().numpy(), np.int64)
    if hasattr(dataset, "targets"):
        return np.asarray(dataset.targets, np.int64)
    return np.asarray([int(dataset[i][1]) for i in range(len(dataset))], np.int64)
