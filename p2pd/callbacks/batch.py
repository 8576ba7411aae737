"""How many samples a batch has, whatever a script makes its batches of."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch


def length_of(batch: Any) -> int:
    """As many as the first tensor in ``batch`` has rows; 1 where there is none.

    >>> length_of({"names": ["a", "b"], "images": [torch.zeros(8, 3), torch.zeros(2)]})
    8
    """
    return next(_lengths(batch), 1)


def _lengths(batch: Any) -> Iterator[int]:
    if isinstance(batch, torch.Tensor):
        if batch.ndim:
            yield len(batch)
    elif isinstance(batch, Mapping):
        yield from _lengths(list(batch.values()))
    elif isinstance(batch, list | tuple):
        for one in batch:
            yield from _lengths(one)
