"""What benchmarks/overlap.py measures: ``overlap_script.py RESULT ROUNDS STEPS [LINK]``.

Without LINK it trains alone. A step takes 50 ms at least, as a device's would while the processor
waits for it. Writes to RESULT how many samples a second were trained on, from the end of the second
round to that of the last, and which share of that time ``swarm.step()`` took.
"""

import json
import sys
import time
from pathlib import Path

import torch
from torch import nn

import p2pd

WIDTH = 768
SAMPLES = 8
STEP_S = 0.05
WARM_UP_ROUNDS = 2


def main() -> None:
    """Train, and say how fast."""
    result, rounds, steps, *link = sys.argv[1:]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    swarm = p2pd.join(link[0], model, optimizer) if link else None
    ended_s: list[float] = []
    in_step_s = 0.0
    count = 0
    began_s = time.monotonic()
    while len(ended_s) < int(rounds):
        inputs = torch.randn(SAMPLES, WIDTH)
        loss = nn.functional.mse_loss(model(inputs), inputs)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # as torch has it
        optimizer.step()
        count += 1
        time.sleep(max(0.0, STEP_S - (time.monotonic() - began_s)))
        has_ended = count % int(steps) == 0
        stepped_s = time.monotonic()
        if swarm is not None:
            has_ended = swarm.step(loss=loss, samples=SAMPLES)
        began_s = time.monotonic()
        if len(ended_s) >= WARM_UP_ROUNDS:
            in_step_s += began_s - stepped_s
        if has_ended:
            ended_s.append(began_s)
    measured_s = ended_s[-1] - ended_s[WARM_UP_ROUNDS - 1]
    samples = SAMPLES * int(steps) * (int(rounds) - WARM_UP_ROUNDS)
    parameters = sum(one.numel() for one in model.parameters())
    found = {
        "samples_per_second": samples / measured_s,
        "share_in_step": in_step_s / measured_s,
        "parameters": parameters,
    }
    Path(result).write_text(json.dumps(found))
    while swarm is not None:  # for the other one
        time.sleep(STEP_S)
        swarm.step(loss=0.0, samples=SAMPLES)


if __name__ == "__main__":
    main()
