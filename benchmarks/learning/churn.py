"""Churn: many rounds of real peers with random joins, leaves and kills, and the same without.

    python -m benchmarks.learning.churn [--rounds 200] [--seed 1]

Real daemons on loopback, driven through the command line. Three peers live through it all, up to
five others join, leave in good order, are killed (daemon or worker, kill -9) and come back, by the
seed. Writes docs/learning-churn.md and .png.
"""

import argparse
import signal
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # the backend has to be chosen before

from benchmarks.learning.report import table
from tests.system.churning_swarm import ChurningSwarm, ChurnRecord, Event, Usage, plan_churn, slope
from tests.system.real_swarm import RealSwarm, assert_equal_exports

DOCS = Path(__file__).parents[2] / "docs"
LAST_ROUNDS = 20
"""Over so many the final accuracy is averaged: one test sample is 0.11 points."""
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


def memory_rows(record: ChurnRecord, run_name: str) -> list[list[str]]:
    """Of each resident's daemon and worker: medians early and late, and the slope between."""
    rows = []
    for name, usage in record.usage.items():
        last = usage[-1].round
        for process, rss_of in (
            ("daemon", lambda one: one.daemon_rss_bytes / MB),
            ("worker", lambda one: one.worker_rss_bytes / MB),
        ):
            of: Callable[[Usage], float] = rss_of
            early = [of(one) for one in usage if last / 4 <= one.round <= last / 2]
            late = [of(one) for one in usage if one.round >= 3 * last / 4]
            growth = slope([(one.round, of(one)) for one in usage if one.round >= last / 4])
            rows.append(
                [
                    f"{run_name}: {name}, {process}",
                    f"{statistics.median(early):.1f}",
                    f"{statistics.median(late):.1f}",
                    f"{100 * growth:+.2f}",
                ]
            )
    return rows


def describe(calm: ChurnRecord, churned: ChurnRecord, seed: int) -> str:
    """The document."""
    rounds = churned.rounds[-1].round
    counts = Counter(str(event.action) for event in churned.events)
    arrivals = [seconds for times in churned.arrivals_s.values() for seconds in times]
    last_usage = [usage[-1] for usage in churned.usage.values()]
    files = [(usage[len(usage) // 4], usage[-1]) for usage in churned.usage.values()]
    rows = [
        ["rounds", str(calm.rounds[-1].round), str(rounds)],
        ["events", "0", str(len(churned.events))],
        [
            f"accuracy, mean of the last {LAST_ROUNDS} rounds, %",
            f"{final_accuracy(calm):.2f}",
            f"{final_accuracy(churned):.2f}",
        ],
        ["accuracy of the last round, %"]
        + [f"{100 * one.rounds[-1].accuracy:.2f}" for one in (calm, churned)],
        ["median time of a round, s"]
        + [f"{statistics.median(one.round_times_s):.2f}" for one in (calm, churned)],
        ["longest time between two rounds, s"]
        + [f"{max(one.round_times_s):.2f}" for one in (calm, churned)],
        ["rounds that ended in two states"] + [str(len(one.forks)) for one in (calm, churned)],
        ["refused of each other by honest peers"] + [str(one.rejects) for one in (calm, churned)],
    ]
    return (
        "# Churn\n\n"
        f"{rounds} rounds of digits with real daemons on one machine; joins, leaves and kills by"
        f" seed {seed}. Three\npeers live through both runs, three to eight take part. In the end"
        " all who are there hold the same weights,\nbit for bit. Written by `python -m"
        " benchmarks.learning.churn`.\n\n"
        + table(["", "without churn", "with churn"], rows)
        + "\nEvents: "
        + ", ".join(f"{count} times a peer {action}" for action, count in sorted(counts.items()))
        + ".\n\nFrom the start of a process to its first averaged round it took"
        f" {statistics.median(arrivals):.1f} s in the median and {max(arrivals):.1f} s at most"
        f" ({len(arrivals)} starts; {sum(churned.never_arrived.values())} more were killed or left"
        " before).\n\n"
        "Memory of the peers that live through it all, RSS in MB:\n\n"
        + table(
            [
                "",
                f"median of rounds {rounds // 4} to {rounds // 2}",
                f"median of rounds {3 * rounds // 4} to {rounds}",
                "growth per 100 rounds",
            ],
            [*memory_rows(calm, "calm"), *memory_rows(churned, "churn")],
        )
        + "\nOpen files of their daemons after a quarter of the rounds and in the end: "
        + ", ".join(f"{early.daemon_files} and {late.daemon_files}" for early, late in files)
        + "; their state directories in the end: "
        + ", ".join(f"{one.state_dir_bytes / MB:.1f} MB" for one in last_usage)
        + ", "
        + ", ".join(f"{early.state_dir_bytes / MB:.1f} MB" for early, _ in files)
        + " after a quarter.\n\n![accuracy and memory by round](learning-churn.png)\n"
    )


def plot(calm: ChurnRecord, churned: ChurnRecord, path: Path) -> None:
    """Accuracy and number of peers above, memory below."""
    figure, (above, middle, below) = pyplot.subplots(
        3, 1, figsize=(7.5, 8), dpi=110, sharex=True, height_ratios=[3, 1, 2]
    )
    for name, record in (("without churn", calm), ("with churn", churned)):
        numbers = [end.round for end in record.rounds]
        above.plot(numbers, [100 * end.accuracy for end in record.rounds], label=name, linewidth=1)
    above.set_ylabel("test accuracy in %")
    middle.step([end.round for end in churned.rounds], [end.peers for end in churned.rounds])
    middle.set_ylabel("peers")
    for name, usage in churned.usage.items():
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
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the swarm ends with this
    calm = run(arguments.rounds, [])
    churned = run(arguments.rounds, plan_churn(arguments.seed, arguments.rounds))
    text = describe(calm, churned, arguments.seed)
    (DOCS / "learning-churn.md").write_text(text)
    plot(calm, churned, DOCS / "learning-churn.png")
    print(text)


if __name__ == "__main__":
    main()
