"""Churn: many rounds of real peers with random joins, leaves and kills, and the same without.

    python -m benchmarks.learning.churn [--rounds 200] [--seeds 1,2]

Real daemons on loopback, driven through the command line. Three peers live through it all, up to
five others join, leave in good order, are killed (daemon or worker, kill -9) and come back, by the
seed. Writes docs/learning-churn.md and .png, and exits with 1 if churn costs more accuracy or
memory than is promised.
"""

import argparse
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # the backend has to be chosen before

from benchmarks.learning.report import table
from benchmarks.promises import Promise, check, listed
from tests.interruption import unwind_when_interrupted
from tests.system.faults.churning_swarm import (
    ChurningSwarm,
    ChurnRecord,
    Event,
    Usage,
    plan_churn,
    slope,
)
from tests.system.real_swarm import RealSwarm, assert_equal_exports

DOCS = Path(__file__).parents[2] / "docs"
LAST_ROUNDS = 20
"""Over so many the final accuracy is averaged: one test sample is 0.11 points."""
PROCESSES: dict[str, Callable[[Usage], int]] = {
    "daemon": lambda one: one.daemon_rss_bytes,
    "worker": lambda one: one.worker_rss_bytes,
}
LOST_POINTS = 0.5
GROWTH_MB = 5.0
"""Of a daemon or worker that lives through it all, in a hundred rounds: no more than one run
differs from the next."""
MB = 1e6


def run(rounds: int, plan: Sequence[Event]) -> ChurnRecord:
    """One swarm through all rounds."""
    with tempfile.TemporaryDirectory(prefix="p2pd-churn-") as directory:
        with RealSwarm(Path(directory)) as swarm:
            churning = ChurningSwarm(swarm, rounds)
            present = churning.run(plan)
            assert_equal_exports(present, Path(directory))
        return churning.record


def final_accuracy(record: ChurnRecord) -> float:
    """In percent, averaged over the last rounds."""
    return 100 * statistics.fmean(end.accuracy for end in record.rounds[-LAST_ROUNDS:])


def growth(usage: Sequence[Usage], rss_bytes: Callable[[Usage], int]) -> float:
    """MB in a hundred rounds, once the first quarter is over."""
    points = [(one.round, rss_bytes(one) / MB) for one in usage if one.round >= usage[-1].round / 4]
    return 100 * slope(points)


def memory_rows(record: ChurnRecord, run_name: str) -> list[list[str]]:
    """Of each resident's daemon and worker: medians early and late, and the slope between."""
    rows = []
    for name, usage in record.usage.items():
        last = usage[-1].round
        for process, rss_bytes in PROCESSES.items():
            early = [rss_bytes(one) for one in usage if last / 4 <= one.round <= last / 2]
            late = [rss_bytes(one) for one in usage if one.round >= 3 * last / 4]
            rows.append(
                [
                    f"{run_name}: {name}, {process}",
                    f"{statistics.median(early) / MB:.1f}",
                    f"{statistics.median(late) / MB:.1f}",
                    f"{growth(usage, rss_bytes):+.2f}",
                ]
            )
    return rows


def promises_of(calm: ChurnRecord, churned: Sequence[ChurnRecord]) -> list[Promise]:
    """What churn may cost."""
    grown = [
        growth(usage, rss_bytes)
        for record in churned
        for usage in record.usage.values()
        for rss_bytes in PROCESSES.values()
    ]
    return [
        Promise(
            "accuracy with churn, mean of the seeds, beside that without",
            statistics.fmean(map(final_accuracy, churned)) - final_accuracy(calm),
            at_least=-LOST_POINTS,
            unit=" points",
        ),
        Promise("growth of a process in 100 rounds", max(grown), at_most=GROWTH_MB, unit=" MB"),
    ]


def describe(calm: ChurnRecord, churned: Mapping[int, ChurnRecord]) -> str:
    """The document; ``churned`` by seed."""
    rounds = calm.rounds[-1].round
    records = [calm, *churned.values()]
    names = ["without churn", *(f"seed {seed}" for seed in churned)]
    counts = Counter(str(event.action) for one in churned.values() for event in one.events)
    arrivals = [
        seconds
        for one in churned.values()
        for times in one.arrivals_s.values()
        for seconds in times
    ]
    never_arrived = sum(sum(one.never_arrived.values()) for one in churned.values())
    usages = [usage for one in churned.values() for usage in one.usage.values()]
    told: tuple[tuple[str, Callable[[ChurnRecord], str]], ...] = (
        ("rounds", lambda one: str(one.rounds[-1].round)),
        ("events", lambda one: str(len(one.events))),
        (
            f"accuracy, mean of the last {LAST_ROUNDS} rounds, %",
            lambda one: f"{final_accuracy(one):.2f}",
        ),
        (
            "accuracy of the last round, %",
            lambda one: f"{100 * one.rounds[-1].accuracy:.2f}",
        ),
        (
            "median time of a round, s",
            lambda one: f"{statistics.median(one.round_times_s):.2f}",
        ),
        ("longest time between two rounds, s", lambda one: f"{max(one.round_times_s):.2f}"),
        ("rounds that ended in two states", lambda one: str(len(one.forks))),
        ("refused of each other by honest peers", lambda one: str(one.rejects)),
    )
    rows = [[what, *(tell(one) for one in records)] for what, tell in told]
    return (
        "# Churn\n\n"
        f"{rounds} rounds of digits with real daemons on one machine; joins, leaves and kills by"
        " seed. Three\npeers live through each run, three to eight take part. In the end all who"
        " are there hold the same\nweights, bit for bit. Written by `python -m"
        " benchmarks.learning.churn`.\n\n"
        + table(["", *names], rows)
        + "\n"
        + listed(promises_of(calm, list(churned.values())))
        + "\nEvents of all seeds: "
        + ", ".join(f"{count} times a peer {action}" for action, count in sorted(counts.items()))
        + ".\n\nFrom the start of a process to its first averaged round it took"
        f" {statistics.median(arrivals):.1f} s in the median and {max(arrivals):.1f} s at most"
        f" ({len(arrivals)} starts; {never_arrived} more were killed or left before).\n\n"
        "Memory of the peers that live through it all, RSS in MB:\n\n"
        + table(
            [
                "",
                f"median of rounds {rounds // 4} to {rounds // 2}",
                f"median of rounds {3 * rounds // 4} to {rounds}",
                "growth per 100 rounds",
            ],
            [
                row
                for name, one in zip(names, records, strict=True)
                for row in memory_rows(one, name)
            ],
        )
        + "\nAfter a quarter of the rounds and in the end their daemons had open files: "
        + ", ".join(
            f"{one[len(one) // 4].daemon_files} and {one[-1].daemon_files}" for one in usages
        )
        + "; MB in their state directories: "
        + ", ".join(
            f"{one[len(one) // 4].state_dir_bytes / MB:.1f} and {one[-1].state_dir_bytes / MB:.1f}"
            for one in usages
        )
        + ".\n\n![accuracy and memory by round](learning-churn.png)\n"
    )


def plot(calm: ChurnRecord, churned: Mapping[int, ChurnRecord], path: Path) -> None:
    """Accuracy and number of peers above, memory with the first seed's churn below."""
    figure, (above, middle, below) = pyplot.subplots(
        3, 1, figsize=(7.5, 8), dpi=110, sharex=True, height_ratios=[3, 1, 2]
    )
    names = ["without churn", *(f"seed {seed}" for seed in churned)]
    for name, record in zip(names, [calm, *churned.values()], strict=True):
        numbers = [end.round for end in record.rounds]
        above.plot(numbers, [100 * end.accuracy for end in record.rounds], label=name, linewidth=1)
        middle.step(numbers, [end.peers for end in record.rounds])
    above.set_ylabel("test accuracy in %")
    middle.set_ylabel("peers")
    for name, usage in next(iter(churned.values())).usage.items():
        numbers = [one.round for one in usage]
        below.plot(numbers, [one.daemon_rss_bytes / MB for one in usage], label=f"{name}, daemon")
        below.plot(
            numbers,
            [one.worker_rss_bytes / MB for one in usage],
            label=f"{name}, worker",
            linestyle="--",
        )
    below.set_yscale("log")
    below.set_ylabel("RSS in MB")
    below.set_xlabel("round")
    for axes in (above, below):
        axes.legend(fontsize=7)
    for axes in (above, middle, below):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seeds", default="1,2", help="a run with churn for each")
    arguments = parser.parse_args()
    unwind_when_interrupted()
    calm = run(arguments.rounds, [])
    churned = {
        seed: run(arguments.rounds, plan_churn(seed, arguments.rounds))
        for seed in map(int, arguments.seeds.split(","))
    }
    text = describe(calm, churned)
    (DOCS / "learning-churn.md").write_text(text)
    plot(calm, churned, DOCS / "learning-churn.png")
    print(text)
    check(promises_of(calm, list(churned.values())))


if __name__ == "__main__":
    main()
