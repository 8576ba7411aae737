"""One rank of a model that FSDP2 shards: all that a script's end does with its tensors. Fails by
its exit code. For tests/forked_ranks.py, with a directory."""

import os
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from p2pd.model_tensors import ModelTensors
from p2pd.script.errors import SwarmError
from p2pd.script.inner_state import InnerState
from p2pd.script.ranks import Group, Ranks, ranks_of
from p2pd.script.replica import Replica
from p2pd.shared_tensors import MEMORIES, NO_ROOT, StaleMemoryError
from p2pd.trainer import Memories
from p2pd.what_travels import describe, describe_still, still_by_kind

WAIT_S = 120.0
LET_GO_S = 10.0
"""A thread of gloo's may hold a tensor for a moment more. Who holds it here does so for ever."""
FROZEN = "0.weight"
LAST = "2.weight"


class Watched(Group):
    """Fails when a tensor is made whole while the last one is still held."""

    _last: weakref.ref[torch.UntypedStorage] | None = None

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        deadline = time.monotonic() + LET_GO_S
        while self._last is not None and self._last() is not None:
            assert time.monotonic() < deadline, "two whole tensors at once"
            time.sleep(0.001)
        whole = super().whole(tensor)
        if whole is not tensor:
            self._last = weakref.ref(whole.untyped_storage())
        return whole


def made() -> nn.Module:
    """The same at each rank; its first weights are frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model.get_parameter(FROZEN).requires_grad_(False)
    return model


def keep_momentum(model: nn.Module, ranks: Ranks, directory: Path) -> None:
    """A rank that has lost the last round's goes on, with all others, from the round before; one
    that has lost all begins anew, with all others."""

    def optimizer_of(directory: Path) -> tuple[torch.optim.Optimizer, InnerState]:
        trained = [one for one in model.parameters() if one.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.0, momentum=0.5)
        inner = InnerState(optimizer, ranks)
        inner.load(directory, 9)
        return optimizer, inner

    def momentum(optimizer: torch.optim.Optimizer) -> set[float]:
        buffers = [one["momentum_buffer"] for one in optimizer.state.values()]
        return {float(value) for buffer in buffers for value in ranks.whole(buffer).reshape(-1)}

    optimizer, inner = optimizer_of(directory)
    for round_number in (1, 2):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
        optimizer.step()
        inner.save(round_number)
    inner.settle()
    assert momentum(optimizer) == {1.5}
    for number, kept in ((2, {1.0}), (1, set[float]())):
        dist.barrier()
        if not ranks.is_first:
            (directory / f"{ranks.number}-{number:08d}.pt").unlink()
        assert momentum(optimizer_of(directory)[0]) == kept


def save_whole(replica: Replica, whole: nn.Module, path: Path) -> None:
    """A file has the frozen tensors of all ranks' parts; what fails at the first is told to all."""
    trained = {name: one for name, one in whole.state_dict().items() if name != FROZEN}
    replica.save_whole(path, lambda to: save_file(trained, to))
    dist.barrier()
    whole.load_state_dict(load_file(path))
    assert torch.equal(whole.get_parameter(FROZEN), made().get_parameter(FROZEN))

    def fail(to: Path) -> None:
        raise SwarmError(f"no {to.name}")

    with pytest.raises(SwarmError, match="no trained"):
        replica.save_whole(path, fail)


def main() -> None:
    """Say what the model is, write it, read it back."""
    dist.init_process_group("gloo")
    whole = made()
    sharded = made()
    fully_shard(sharded, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    ranks = ranks_of(WAIT_S)
    replica = Replica(sharded, Watched(WAIT_S))
    still = still_by_kind(whole)
    assert still == {FROZEN}
    assert replica.description == [list(one) for one in describe(whole, still)]
    assert replica.frozen() == [list(one) for one in describe_still(whole, still)]
    memories = Memories([os.memfd_create(name) for name in MEMORIES]) if ranks.is_first else None
    memory = None if memories is None else memories.local
    replica.leave(memories, 0, NO_ROOT)
    if memory is not None:
        other = made()
        with torch.no_grad():
            other.get_parameter(LAST).zero_()
        ModelTensors(other, still).read(memory, 0, NO_ROOT)
        assert torch.equal(other.get_parameter(LAST), whole.get_parameter(LAST)), "what was written"
    with torch.no_grad():
        sharded.get_parameter(LAST).zero_()
    replica.read(memory, 0, NO_ROOT)
    for name, value in whole.state_dict().items():
        assert torch.equal(ranks.whole(sharded.state_dict()[name]), value), name
    # With overlap the next training begins where this one is; its base comes later.
    replica.go_on(memory, 0, NO_ROOT)
    own = sharded.get_parameter(LAST)
    with torch.no_grad():
        own.add_(1.0)
        with replica.kept():
            own.zero_()
    replica.go_on(memory, 0, NO_ROOT)
    moved = whole.get_parameter(LAST) + 1.0
    assert torch.allclose(ranks.whole(own.detach()), moved), "to the base as it was moved"
    try:
        replica.read(memory, 1, NO_ROOT)
    except StaleMemoryError:
        pass
    else:
        raise AssertionError("another round than the memory's")
    keep_momentum(sharded, ranks, Path(sys.argv[1]))
    save_whole(replica, whole, Path(sys.argv[1]) / "whole.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
