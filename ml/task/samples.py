"""Batches out of any dataset: fast where it is made of whole tensors, sample by sample else."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset, default_collate

Batch = tuple[Any, Any, int]
"""Inputs, targets, number of samples."""

MAX_TOLD_PARTS = 4
"""The most parts of one item that are named in words."""


class SampleError(Exception):
    """A dataset does not give a sample, or samples that fit together."""


class Samples:
    """Some of a dataset's samples, in batches on one device."""

    def __init__(self, dataset: Any, indices: NDArray[np.int64], device: torch.device) -> None:
        if isinstance(dataset, TensorDataset) and indices.size < len(dataset):
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

    def batches(self, batch_size: int, order: NDArray[np.int64] | None = None) -> Iterator[Batch]:
        """All samples once, in ``order`` (of positions), in batches of nearly equal size.

        Nearly equal, since a last batch of a single sample breaks batch normalization. Raises
        :class:`SampleError`, from what went wrong.
        """
        chosen = self._indices if order is None else self._indices[order]
        for part in np.array_split(chosen, -(-chosen.size // batch_size)):
            yield self._take(part)

    def _take(self, indices: NDArray[np.int64]) -> Batch:
        if isinstance(self._dataset, TensorDataset):
            where = torch.from_numpy(indices)
            inputs, targets = (tensor[where] for tensor in self._dataset.tensors)
        else:
            inputs, targets = self._collate([int(index) for index in indices])
        return self._move(inputs), self._move(targets), int(indices.size)

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

    def _move(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(self._device)
        if isinstance(value, dict):
            return {key: self._move(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._move(item) for item in value]
        return value


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
    if isinstance(dataset, TensorDataset):
        return np.asarray(dataset.tensors[1].cpu().numpy(), np.int64)
    if hasattr(dataset, "targets"):
        return np.asarray(dataset.targets, np.int64)
    return np.asarray([int(dataset[i][1]) for i in range(len(dataset))], np.int64)
