"""How long rounds take while members waste time, as the product's own cores see it in virtual time.

    python -m benchmarks.wasted_time [--rounds 40]

Prints the table of docs/agreement.md.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import mean

from tests.rounds.liars.time_wasters import WASTES, seconds_each_round
from tests.rounds.simulated_swarm import SimulatedSwarm
from tests.rounds.test_training import simulate

SWARMS = ((4, 1), (7, 2))


def measure(count: int, liars: int, how: str, rounds: int, exchange: str = "mesh") -> list[float]:
    """Seconds of each round of the honest."""
    found: list[float] = []

    async def scenario(swarm: SimulatedSwarm) -> None:
        found.extend(await seconds_each_round(swarm, count, liars, how, rounds))

    with tempfile.TemporaryDirectory() as directory:
        simulate(Path(directory), scenario, min_peers=count, exchange=exchange)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    half = rounds // 2
    heads = [f"{liars} of {count}" for count, liars in SWARMS]
    print("| what the liars do |", " | ".join(f"{head}, all | later half" for head in heads), "|")
    print("|---" * (1 + 2 * len(SWARMS)) + "|")
    for how in WASTES:
        cells = []
        for count, liars in SWARMS:
            seconds = measure(count, liars, how, rounds)
            cells += [f"{mean(seconds):.2f}", f"{mean(seconds[half:]):.2f}"]
        print(f"| {how} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
