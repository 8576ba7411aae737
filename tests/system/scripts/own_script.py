"""A user's own training script: ``own_script.py SEED RENDEZVOUS|LINK STATE_DIR``.

It founds the swarm where it is given a rendezvous, and leaves the link in STATE_DIR.link. After
each round it leaves its model in STATE_DIR.models and a line in STATE_DIR.lines. It ends once there
is STATE_DIR.end. A step takes a moment, so that there is time to kill something.
"""

import logging
import sys
import time
from pathlib import Path

import p2pd
from ml.training.compiler_on_demand import leave_compiler_until_asked
from p2pd.importing import collector_off

with collector_off():
    import torch
    from torch import nn

STEPS = 20
SAMPLES = 32


def made() -> nn.Sequential:
    """A model of which a part stays as it is."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 1))
    nn.init.zeros_(model.get_parameter("0.bias")).requires_grad_(False)
    return model


def main() -> None:
    """Train until told to end."""
    seed, target, state_dir = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    leave_compiler_until_asked()
    torch.manual_seed(int(seed))
    model = made()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    options = ["--listen", "127.0.0.1:0"]
    end = Path(f"{state_dir}.end")
    models = Path(f"{state_dir}.models")
    models.mkdir(exist_ok=True)
    lines = Path(f"{state_dir}.lines")
    if target.startswith("p2p:"):
        link = Path(f"{state_dir}.link")
        swarm = p2pd.create(
            model,
            optimizer,
            rendezvous=target,
            state_dir=state_dir,
            announce=link.write_text,
            options=options,
            local_steps=STEPS,
            grace=30,
            min_peers=2,
        )
    else:
        # Where a daemon has started this script, the target does not matter.
        swarm = p2pd.join(target, model, optimizer, state_dir=state_dir, options=options)
    with swarm, lines.open("a") as file:
        while not end.exists():
            inputs = torch.randn(SAMPLES, 8)
            loss = nn.functional.mse_loss(model(inputs), inputs.sum(1, keepdim=True))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # as torch has it
            optimizer.step()
            time.sleep(0.02)
            if swarm.step(loss=loss, samples=SAMPLES):
                taken = int(next(iter(optimizer.state.values()))["step"])
                print(swarm.round, swarm.steps, swarm.samples, taken, file=file, flush=True)
                swarm.evaluated(accuracy=1 / (1 + loss.item()))
                # Whole or not at all: this process is killed at any moment.
                torch.save(model.state_dict(), models / "unfinished")
                (models / "unfinished").rename(models / f"{swarm.round}.pt")
        swarm.save(f"{state_dir}.safetensors", whole=True)
        assert swarm.status()["round"] >= swarm.round


if __name__ == "__main__":
    main()
