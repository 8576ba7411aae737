"""Eight peers and two liars in namespaces, and everything that happens to them: ``make chaos``.

    python -m tests.chaos.campaign [--rounds N] [--seed N]

Prints each thing as it happens, and the seed, by which the same things happen again. Exit code 1
when something that must hold did not; the logs are in ``chaos-logs`` then. It needs root.
"""

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

from tests.chaos.plan import plan
from tests.chaos.watch import Watch
from tests.chaos.world import HONEST, ChaosSwarm, World
from tests.interruption import unwind_when_interrupted
from tests.natlab.lab import NatLab

START_S = 300.0
LOGS = Path("chaos-logs")
"""Where the peers' logs go when something did not hold."""


def main() -> int:
    """Run the campaign."""
    unwind_when_interrupted()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=500, help="how many rounds long")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}, {options.rounds} rounds", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        watch = run(Path(directory), seed, options.rounds)
    return 1 if watch.broken else 0


def run(directory: Path, seed: int, rounds: int) -> Watch:
    """So many rounds by that seed; what was seen."""
    with (
        NatLab(seed) as lab,
        ChaosSwarm(directory / "swarm", lab, seed) as swarm,
        World(lab, swarm) as world,
        Watch(world) as watch,
    ):
        wait_first_round(watch)
        blows = plan(seed, HONEST)
        for number in count(1):
            if watch.rounds >= rounds or watch.broken:
                break
            blow = next(blows)
            name, what = world.peers[blow.peer].name, blow.fault.value
            print(
                f"{number:4} round {watch.rounds}: {name} {what} ({blow.lasts_s:.0f} s)", flush=True
            )
            world.strike(blow)
            time.sleep(blow.calm_s)
        report(world, watch, seed)
        if watch.broken:
            shutil.copytree(swarm.directory, LOGS, dirs_exist_ok=True, ignore=_all_but_logs)
        return watch


def report(world: World, watch: Watch, seed: int) -> None:
    """Say what happened, and what held."""
    faults = (
        f"{world.happened[fault]} of {count} {fault.name.lower()}"
        for fault, count in sorted(world.struck.items(), key=lambda item: item[0].name)
    )
    print("had their effect:", ", ".join(faults))
    print(f"refusals of lies logged: {world.refusals()}")
    print(
        f"seed {seed}: {watch.rounds} rounds; longest without one {watch.longest_s:.0f} s;"
        f" largest daemon {watch.largest_bytes / 1e6:.0f} MB;",
        "; ".join(watch.broken) or "all held",
        flush=True,
    )


def _all_but_logs(directory: str, names: list[str]) -> set[str]:
    return {name for name in names if not name.endswith(".log")}


def wait_first_round(watch: Watch) -> None:
    """Starting so many takes a while; nothing happens to anybody before."""
    deadline = time.monotonic() + START_S
    while watch.rounds < 2 and not watch.broken:
        assert time.monotonic() < deadline, "the swarm does not start"
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
