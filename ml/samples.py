"""Batches out of any dataset: fast where it is made of whole tensors, sample by sample else."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset, default_collate

Batch = tuple[Any, Any, int]
"""Inputs, targets, number of samples."""


class SampleError(Exception):
    """A dataset does not give a sample, or samples that fit together."""


class Samples:
    """Some of a dataset's samples, in batches on one device."""

    def __init__(self, dataset: Any, indices: NDArray[np.int64], device: torch.device) -> None:
        if isinstance(dataset, TensorDataset) and indices.size < len(dataset):
            # A copy of the own samples, so that the memory of all others can go.
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
            raise SampleError(f"items {indices[0]} to {indices[-1]} do not make a batch") from error

    def _move(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(self._device)
        if isinstance(value, dict):
            return {key: self._move(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._move(item) for item in value]
        return value


def labels_of(dataset: Any) -> NDArray[np.int64]:
    """The target of every sample, for partitions that look at classes."""
    if isinstance(dataset, TensorDataset):
        return np.asarray(dataset.tensors[1].cpu().numpy(), np.int64)
    if hasattr(dataset, "targets"):
        return np.asarray(dataset.targets, np.int64)
    return np.asarray([int(dataset[i][1]) for i in range(len(dataset))], np.int64)
