"""A user's own training script for several processes: ``own_ranks.py ddp|fsdp2|alone DIRECTORY``.

Each rank leaves its process id in DIRECTORY, and a line after each round: see :class:`Line`. With
``alone``, and without torchrun, it founds a swarm; with RENDEZVOUS and STATE_DIR as further words
it does so by ``p2pd.create``, or goes on there.
"""

import hashlib
import os
import sys
import time
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import p2pd

STEPS = 10
SAMPLES = 16


@dataclass(frozen=True, slots=True)
class Line:
    """What one rank had after a round."""

    round: int
    steps: int
    """Of the swarm: where a schedule is."""
    optimizer_steps: int
    """Of this rank's optimizer, through all of its lives."""
    digest: str
    """Of all parameters, whole."""


def lines_of(directory: Path, rank: int) -> list[Line]:
    """What that rank has left so far."""
    path = directory / f"rank-{rank}"
    if not path.exists():
        return []
    whole, _, _ = path.read_text().rpartition("\n")
    rows = [row.split() for row in whole.splitlines()]
    return [Line(int(row[0]), int(row[1]), int(row[2]), row[3]) for row in rows]


def pid_of(directory: Path, rank: int) -> int:
    """That rank's process, of those that it left there the last."""
    return int((directory / f"pid-{rank}").read_text())


def digest_of(model: nn.Module) -> str:
    """Asked by all ranks at once."""
    found = hashlib.sha256()
    for _, parameter in sorted(model.named_parameters()):
        whole = getattr(parameter, "full_tensor", lambda one=parameter: one)()
        found.update(whole.detach().numpy().tobytes())
    return found.hexdigest()


def made(kind: str) -> nn.Module:
    """As a rank has it."""
    model: nn.Module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    if kind == "alone":
        return model
    if kind == "ddp":
        return DistributedDataParallel(model)
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    return model


def taking_part(
    model: nn.Module, optimizer: torch.optim.Optimizer, rendezvous: str = "", state_dir: str = ""
) -> p2pd.Swarm:
    """Where ``rendezvous`` is given, in a swarm of one peer."""
    if not rendezvous:
        return p2pd.join(None, model, optimizer)
    return p2pd.create(
        model,
        optimizer,
        rendezvous=rendezvous,
        state_dir=state_dir,
        options=["--listen", "127.0.0.1:0"],
        local_steps=STEPS,
        min_peers=1,
    )


def main() -> None:
    """Train for ever."""
    kind, directory, *founding = sys.argv[1:]
    if kind != "alone":
        dist.init_process_group("gloo")
    model = made(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    number = os.environ.get("RANK", "-")
    path = Path(directory) / f"rank-{number}"
    path.with_name(f"pid-{number}").write_text(str(os.getpid()))
    with taking_part(model, optimizer, *founding) as swarm, path.open("a") as file:
        while True:
            inputs = torch.randn(SAMPLES, 8)
            loss = nn.functional.mse_loss(model(inputs), inputs.sum(1, keepdim=True))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # as torch has it
            optimizer.step()
            time.sleep(0.02)  # so that there is time to kill something
            if swarm.step(loss=loss, samples=SAMPLES):
                taken = int(next(iter(optimizer.state.values()))["step"])
                line = Line(swarm.round, swarm.steps, taken, digest_of(model))
                print(*astuple(line), file=file, flush=True)


if __name__ == "__main__":
    main()
