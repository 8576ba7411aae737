"""Accuracy by round: a swarm, one machine with all data and the same total steps, one peer alone.

    python -m benchmarks.learning.accuracy --data-dir DIR [--rounds 5]

MNIST, 3 and 8 peers, IID and Dirichlet(0.3). Writes docs/learning-accuracy.md and .png.
"""

import argparse
import dataclasses
from pathlib import Path

from benchmarks.learning.local_swarm import Point, Run, run_swarm
from benchmarks.learning.report import plot, table
from protocol.swarm import RoundSettings

DOCS = Path(__file__).parents[2] / "docs"
PEERS = (3, 8)
PARTITIONS = ("iid", "dirichlet:0.3")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True, help="where MNIST is")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    settings = RoundSettings(local_unit="epochs", local_amount=1)
    swarm = Run("mnist", True, arguments.data_dir, settings, 3, arguments.rounds)
    series: dict[str, list[Point]] = {}
    # An epoch of the whole is as many steps as all peers' epochs together.
    series["one machine, all data"] = run_swarm(
        dataclasses.replace(swarm, peers=1), label="one machine, all data"
    )
    for peers in PEERS:
        series[f"one of {peers} alone"] = run_swarm(
            dataclasses.replace(swarm, peers=1, shards=peers), label=f"one of {peers} alone"
        )
        for partition in PARTITIONS:
            label = f"{peers} peers, {partition}"
            series[label] = run_swarm(
                dataclasses.replace(swarm, peers=peers, partition=partition), label=label
            )
    rows = [
        [name, *(f"{100 * point.accuracy:.2f}" for point in points)]
        for name, points in series.items()
    ]
    heads = ["MNIST, test accuracy in %", *(f"round {n}" for n in range(1, arguments.rounds + 1))]
    (DOCS / "learning-accuracy.md").write_text(
        "# Accuracy by round\n\n"
        "A round is one epoch of each peer's own part; one machine with all data takes as many"
        " steps\nin a round as all peers together. Written by"
        " `python -m benchmarks.learning.accuracy`.\n\n"
        + table(heads, rows)
        + "\n![accuracy by round](learning-accuracy.png)\n"
    )
    plot(
        {
            name: [(point.round, 100 * point.accuracy) for point in points]
            for name, points in series.items()
        },
        DOCS / "learning-accuracy.png",
        x="round",
        y="test accuracy in %",
    )


if __name__ == "__main__":
    main()
