"""Accuracy by round: a swarm, one machine with all data and the same total steps, one peer alone.

    python -m benchmarks.learning.accuracy --data-dir DIR [--rounds 5] [--seeds 1,2] [--jobs N]

MNIST, 3 and 8 peers, IID and Dirichlet(0.3). Alone is each of the peers in turn, on its own shard.
Writes docs/learning-accuracy.md and .png, and exits with 1 if an IID swarm is not what it promises.
"""

import argparse
import dataclasses
import multiprocessing
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from benchmarks.learning.local_swarm import Run, run_swarm
from benchmarks.learning.report import plot, table
from benchmarks.promises import Promise, check, listed
from protocol.statements.swarm import RoundSettings

DOCS = Path(__file__).parents[2] / "docs"
PEERS = (3, 8)
IID = "iid"
PARTITIONS = (IID, "dirichlet:0.3")
WHOLE = "one machine, all data"
BEHIND_POINTS = 0.5
"""An IID swarm ends no more than so much below one machine with all data."""


def curve(run: Run, label: str) -> list[float]:
    """Test accuracy in % after each round. In a process of its own, with one thread."""
    torch.set_num_threads(1)
    return [100 * point.accuracy for point in run_swarm(run, label=label)]


def runs_of(swarm: Run) -> dict[str, list[Run]]:
    """What is compared, for one seed: the runs that each line is the mean of."""
    # An epoch of the whole is as many steps as all peers' epochs together.
    runs = {WHOLE: [dataclasses.replace(swarm, peers=1)]}
    for peers in PEERS:
        for partition in PARTITIONS:
            cut = dataclasses.replace(swarm, partition=partition)
            runs[f"{peers} peers, {partition}"] = [dataclasses.replace(cut, peers=peers)]
            runs[f"one of {peers} alone, {partition}"] = [
                dataclasses.replace(cut, peers=1, shards=peers, first_shard=shard)
                for shard in range(peers)
            ]
    return runs


def learn_all(swarm: Run, seeds: Sequence[int], jobs: int) -> dict[str, list[list[float]]]:
    """By line, the curves of all its runs and seeds; ``jobs`` runs at a time."""
    curves: dict[str, list[list[float]]] = {}
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending = [
            (name, pool.submit(curve, run, f"{name}, seed {seed}"))
            for seed in seeds
            for name, runs in runs_of(dataclasses.replace(swarm, seed=seed)).items()
            for run in runs
        ]
        for name, future in pending:
            curves.setdefault(name, []).append(future.result())
    return curves


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True, help="where MNIST is")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at once")
    arguments = parser.parse_args()
    settings = RoundSettings(local_unit="epochs", local_amount=1)
    swarm = Run("mnist", True, arguments.data_dir, settings, 1, arguments.rounds)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    curves = learn_all(swarm, seeds, arguments.jobs)
    means = {
        name: list(map(statistics.fmean, zip(*found, strict=True)))
        for name, found in curves.items()
    }
    rows = [
        [
            name,
            *(f"{accuracy:.2f}" for accuracy in means[name]),
            f"{min(one[-1] for one in found):.2f} to {max(one[-1] for one in found):.2f}",
        ]
        for name, found in curves.items()
    ]
    heads = [
        "MNIST, test accuracy in %",
        *(f"round {number}" for number in range(1, arguments.rounds + 1)),
        "in the end, each",
    ]
    promises = [
        Promise(
            f"{peers} peers, {IID}, beside {WHOLE}",
            means[f"{peers} peers, {IID}"][-1] - means[WHOLE][-1],
            at_least=-BEHIND_POINTS,
            unit=" points",
        )
        for peers in PEERS
    ]
    (DOCS / "learning-accuracy.md").write_text(
        "# Accuracy by round\n\n"
        "A round is one epoch of each peer's own part; one machine with all data takes as many"
        " steps\nin a round as all peers together. Alone is each of the peers in turn, on its own"
        f" part.\nMeans over seeds {' and '.join(map(str, seeds))}. Written by"
        " `python -m benchmarks.learning.accuracy`.\n\n"
        + table(heads, rows)
        + "\n"
        + listed(promises)
        + "\n![accuracy by round](learning-accuracy.png)\n"
    )
    plot(
        {name: list(enumerate(accuracies, 1)) for name, accuracies in means.items()},
        DOCS / "learning-accuracy.png",
        x="round",
        y="test accuracy in %",
    )
    check(promises)


if __name__ == "__main__":
    main()
