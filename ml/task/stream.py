"""Batches that a task makes itself: a DataLoader, an IterableDataset, or any other iterable.

They are taken as they come, with the task's own collating, shuffling and workers. An iterable goes
on from round to round where it was, and begins again when it is at its end, or after a restart.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, Subset

from ml.task.samples import Batch, moved
from ml.task.seeds import permutation


@dataclass(frozen=True, slots=True)
class Shard:
    """What a task's ``train_dataset(data_dir, shard)`` is told: which part it is for."""

    index: int
    """From 0."""
    count: int
    seed: int
    """The swarm's, the same at every peer."""


class Stream:
    """Batches from an iterable, on one device.

    >>> batches = [torch.tensor([number]) for number in range(5)]
    >>> stream = Stream(batches, torch.device("cpu"), Shard(index=1, count=2, seed=7))
    >>> stream.epoch_batches
    2
    >>> [batch.value.item() for batch in itertools.islice(stream.endless(), 5)]
    [1, 3, 1, 3, 1]
    """

    def __init__(self, iterable: Iterable[Any], device: torch.device, shard: Shard) -> None:
        """Of ``shard.count`` parts the batches are dealt out in turn."""
        self._iterable = iterable
        self._device = device
        self._shard = shard
        self._going: Iterator[Any] | None = None

    @property
    def epoch_batches(self) -> int | None:
        """How many batches an epoch has; None where the iterable does not say."""
        if not isinstance(self._iterable, Sized):
            return None
        try:
            count = len(self._iterable)
        except TypeError:  # a DataLoader's length is its dataset's, which may have none
            return None
        return -(-(count - self._shard.index) // self._shard.count)

    def head(self, count: int) -> "Stream":
        """As much as is tried first: one batch."""
        return Stream(_First(self._iterable), self._device, replace(self._shard, index=0, count=1))

    def once(self) -> Iterator[Batch]:
        """All batches, from the first on."""
        for value in itertools.islice(
            iter(self._iterable), self._shard.index, None, self._shard.count
        ):
            yield Batch(moved(value, self._device), sample_count(value))

    def endless(self) -> Iterator[Batch]:
        """Batches for ever, from where they were left. Raises :class:`ValueError` for none."""
        while True:
            is_new = self._going is None
            self._going = self._going or self.once()
            batch = next(self._going, None)
            if batch is not None:
                yield batch
                continue
            if is_new:
                raise ValueError("it has no batches")
            self._going = None


def batches_of(dataset: Any, shard: Shard, batch_size: int) -> Iterable[Any] | None:
    """``dataset`` as an iterable of batches, if it is no sequence of samples.

    ``shard``: the part to take of a DataLoader's dataset, which is then made anew for it.
    """
    if isinstance(dataset, IterableDataset):
        return DataLoader(dataset, batch_size=batch_size)
    if isinstance(dataset, DataLoader):
        return dataset if shard.count == 1 else _of_shard(dataset, shard)
    is_sequence = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    return dataset if isinstance(dataset, Iterable) and not is_sequence else None


def is_dealt_out(loader: Any) -> bool:
    """Whether a DataLoader's samples can be split, instead of dealing its batches out."""
    return (
        isinstance(loader, DataLoader)
        and not isinstance(loader.dataset, IterableDataset)
        and loader.batch_size is not None
    )


def sample_count(value: Any) -> int:
    """How many samples a batch has: the length of the first tensor or list found in it, else 1."""
    if isinstance(value, torch.Tensor):
        return int(value.shape[0]) if value.ndim else 1
    if isinstance(value, Mapping):
        return next((sample_count(one) for one in value.values()), 1)
    if isinstance(value, tuple | list) and value:
        first = value[0]
        nested = isinstance(first, torch.Tensor | Mapping | tuple | list)
        return sample_count(first) if nested else len(value)
    return 1


class _First:
    """The first batch alone."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterable = iterable

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self._iterable), 1)

    def __len__(self) -> int:
        return 1


def _of_shard(loader: "DataLoader[Any]", shard: Shard) -> "DataLoader[Any]":
    if not is_dealt_out(loader):
        return loader
    indices = permutation(len(loader.dataset), shard.seed, "shards")  # type: ignore[arg-type]
    mine = Subset(loader.dataset, sorted(int(one) for one in indices[shard.index :: shard.count]))
    return DataLoader(
        mine,
        batch_size=loader.batch_size,
        shuffle=isinstance(loader.sampler, RandomSampler),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )
