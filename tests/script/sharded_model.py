"""One rank of a model that FSDP2 shards: all that a script's end does with its tensors. Fails by
its exit code. For torchrun."""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from p2pd.model_tensors import ModelTensors
from p2pd.script.ranks import ranks_of
from p2pd.script.replica import Replica
from p2pd.shared_tensors import NO_ROOT, SharedTensors
from p2pd.what_travels import describe, describe_still, still_by_kind

WAIT_S = 120.0
LAST = "2.weight"


def made() -> nn.Module:
    """The same at each rank; its first weights are frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model.get_parameter("0.weight").requires_grad_(False)
    return model


def main() -> None:
    """Say what the model is, write it, read it back."""
    dist.init_process_group("gloo")
    whole = made()
    sharded = made()
    fully_shard(sharded, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    ranks = ranks_of(WAIT_S)
    replica = Replica(sharded, ranks)
    still = still_by_kind(whole)
    assert still == {"0.weight"}
    assert replica.description == [list(one) for one in describe(whole, still)]
    assert replica.frozen() == [list(one) for one in describe_still(whole, still)]
    memory = SharedTensors(os.memfd_create("memory")) if ranks.is_first else None
    replica.write(memory, 0, NO_ROOT)
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
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
