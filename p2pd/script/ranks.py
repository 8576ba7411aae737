"""The processes that train one peer's model together: one, or several of torch.distributed.

All of them make the same calls, as they do to train. The first one speaks with the daemon; what it
is asked goes to the others as orders, and tensors pass one at a time, so that no rank ever holds
more than one whole tensor beside its share of the model (DDP has all of it, FSDP2 a part).
"""

import abc
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from p2pd.script.errors import SwarmError

T = TypeVar("T")


class Ranks(abc.ABC):
    """Those who train one model."""

    number = 0
    """Of this process among them."""
    count = 1
    """How many they are."""
    is_first = True
    """Whether this is the one that speaks with the daemon."""

    @abc.abstractmethod
    def share(self, value: T) -> T:
        """The first rank's value, on each of them; small, and of plain types."""

    @abc.abstractmethod
    def verdict(self, value: int) -> int:
        """The same for a number, as cheaply as can be: it is asked in each step."""

    @abc.abstractmethod
    def least(self, value: int) -> int:
        """The smallest of all ranks' values."""

    @abc.abstractmethod
    def total(self, values: list[float]) -> list[float]:
        """The sums of all ranks' values."""

    @abc.abstractmethod
    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """All of a tensor of which each rank may have a part."""

    @abc.abstractmethod
    def spread(self, tensor: torch.Tensor, values: torch.Tensor | None) -> None:
        """Make ``tensor`` the first rank's ``values``, whole and on the CPU; others have None."""


class Alone(Ranks):
    """One process."""

    def share(self, value: T) -> T:
        """See :class:`Ranks`."""
        return value

    def verdict(self, value: int) -> int:
        """See :class:`Ranks`."""
        return value

    def least(self, value: int) -> int:
        """See :class:`Ranks`."""
        return value

    def total(self, values: list[float]) -> list[float]:
        """See :class:`Ranks`."""
        return values

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """See :class:`Ranks`."""
        return tensor

    def spread(self, tensor: torch.Tensor, values: torch.Tensor | None) -> None:
        """See :class:`Ranks`."""
        assert values is not None
        tensor.copy_(values.reshape(tensor.shape))


class Group(Ranks):
    """The processes of torch.distributed's default group, which speak over gloo of their own."""

    def __init__(self, wait_s: float) -> None:
        """``wait_s``: how long a rank waits for another one."""
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=wait_s))
        assert isinstance(group, dist.ProcessGroup)  # this process is one of all
        self._group = group
        self.number, self.count = dist.get_rank(), dist.get_world_size()
        self.is_first = self.number == 0
        self._number = torch.zeros(1, dtype=torch.int64)

    def share(self, value: T) -> T:
        """See :class:`Ranks`."""
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0, group=self._group)
        shared: T = box[0]
        return shared

    def verdict(self, value: int) -> int:
        """See :class:`Ranks`."""
        self._number[0] = value
        dist.broadcast(self._number, src=0, group=self._group)
        return int(self._number[0])

    def least(self, value: int) -> int:
        """See :class:`Ranks`."""
        least = torch.tensor(value)
        dist.all_reduce(least, dist.ReduceOp.MIN, group=self._group)
        return int(least)

    def total(self, values: list[float]) -> list[float]:
        """See :class:`Ranks`."""
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums, group=self._group)
        return [float(value) for value in sums]

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """See :class:`Ranks`."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def spread(self, tensor: torch.Tensor, values: torch.Tensor | None) -> None:
        """See :class:`Ranks`."""
        if values is None:
            values = torch.empty(tensor.shape, dtype=_travels_as(tensor.dtype))
        values = values.reshape(tensor.shape)
        dist.broadcast(values, src=0, group=self._group)
        if isinstance(tensor, DTensor):
            mesh, placements = tensor.device_mesh, tensor.placements
            # Every rank has all of it: each takes its part, and none has to be sent any.
            part = distribute_tensor(
                values.to(tensor.dtype).to(mesh.device_type),
                mesh,
                placements,
                src_data_rank=None,
            )
            tensor.to_local().copy_(part.to_local())
        else:
            tensor.copy_(values)


def ranks_of(wait_s: float) -> Ranks:
    """Those that this process is one of."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return Group(wait_s)
    return Alone()


def plain(model: nn.Module) -> nn.Module:
    """The model that DDP, or torch.compile, has been wrapped around.

    Raises :class:`SwarmError` for what shards a model in a way of its own.
    """
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif type(model).__name__ == "FullyShardedDataParallel":
            raise SwarmError(
                "FullyShardedDataParallel (FSDP1) flattens a model's tensors: use fully_shard"
                " (FSDP2) of torch.distributed.fsdp"
            )
        else:
            return model


def _travels_as(dtype: torch.dtype) -> torch.dtype:
    """As it lies in shared memory."""
    return torch.float32 if dtype.is_floating_point else dtype
