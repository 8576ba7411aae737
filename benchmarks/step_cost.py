"""What ``swarm.step()`` costs while no round ends, beside a training step of 50 ms.

    python -m benchmarks.step_cost

A script joins a daemon that this program plays, over a real channel, in a round that does not end,
and takes steps without training. Prints microseconds a step, in the median of several runs.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from p2pd import Swarm
from p2pd.script.desk import Desk
from p2pd.script.hand import Hand, Measuring
from p2pd.script.ranks import Alone
from tests.script.daemon_side import DaemonSide, filled

TRAINING_STEP_S = 0.05


def microseconds_a_step(steps: int) -> float:
    """Of one round that goes on."""
    with tempfile.TemporaryDirectory() as directory:
        daemon = DaemonSide(Path(directory))
        daemon.settings |= {"local_unit": "steps", "local_amount": float(2 * steps)}
        daemon.open()
        daemon.train(1, filled(1.0))
        desk = Desk(daemon, wait_s=60.0)
        swarm = Swarm(Hand(desk, Alone(), filled(0.0), measuring=Measuring()))
        loss = torch.tensor(1.0, requires_grad=True)
        began_s = time.perf_counter()
        for _ in range(steps):
            swarm.step(loss=loss, samples=32)
        seconds = time.perf_counter() - began_s
        swarm.leave()
        daemon.close()
    return 1e6 * seconds / steps


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    costs = sorted(microseconds_a_step(arguments.steps) for _ in range(arguments.runs))
    median = statistics.median(costs)
    share = 100 * median / 1e6 / TRAINING_STEP_S
    print(f"{median:.1f} µs a step ({costs[0]:.1f} to {costs[-1]:.1f}): {share:.3f} % of 50 ms")


if __name__ == "__main__":
    main()
