"""Bytes at equal final quality: fp32 models to everyone after every epoch, or what p2pd can do.

    python -m benchmarks.learning.bytes_sent --data-dir DIR [--seeds 1] [--jobs N] [--keep DIR]

MNIST (final accuracy within 0.5 points) with four peers, and the character transformer of examples/
(final loss within 2 %) with 32. The frugal swarms exchange more seldom, after several epochs, with
a larger outer step (DiLoCo, arXiv 2311.08105); four peers send top-k pseudo-gradients with 2-bit
values and error feedback to each other (SparseLoCo, arXiv 2508.15706), 32 send int8 by all-reduce.
All ways take the same steps on the same samples. The training is the peers' own
(ml/learner.py), the bytes are those of the update files, headers and all, once for each peer
that they go to. Writes docs/learning-bytes.md and its pictures, and exits with 1 if no way of a
task is a hundred times cheaper at equal quality.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from benchmarks.learning.local_swarm import Point, Run, run_swarm
from benchmarks.learning.report import plot, table
from benchmarks.promises import Promise, check, listed
from protocol.statements.swarm import RoundSettings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TIMES_FEWER = 100.0
"""In bytes, at equal quality: within"""
WITHIN_POINTS = 0.5
"""of accuracy, or"""
WITHIN_PERCENT = 2.0
"""of loss."""


@dataclass(frozen=True, slots=True)
class Way:
    """How peers exchange, beside fp32 after every epoch with plain averaging."""

    compression: str
    epochs: int
    """Of its own data, that each peer trains a round."""
    outer_learning_rate: float = 1.0
    outer_momentum: float = 0.0
    exchange: str = "mesh"
    all_seeds: bool = False
    """Whether it is run with every seed, or the first one only."""

    @property
    def name(self) -> str:
        """For tables and pictures."""
        form = "fp32" if self.compression == "none" else self.compression
        often = "every epoch" if self.epochs == 1 else f"every {self.epochs} epochs"
        how = "" if self.exchange == "mesh" else f"{self.exchange}, "
        return f"{how}{form}, {often}"

    @property
    def stem(self) -> str:
        """For files."""
        code = self.compression.replace(":", "")
        outer = f"{self.outer_learning_rate:g}-{self.outer_momentum:g}"
        return f"{self.exchange}-{code}-{self.epochs}epochs-{outer}"

    @property
    def settings(self) -> RoundSettings:
        """The swarm's."""
        return RoundSettings(
            exchange=self.exchange,
            local_unit="epochs",
            local_amount=self.epochs,
            compression=self.compression,
            outer_learning_rate=self.outer_learning_rate,
            outer_momentum=self.outer_momentum,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """One task, learned in several ways; the first one is what the others are measured by."""

    name: str
    stem: str
    """Of the picture's name."""
    task: str
    builtin: bool
    peers: int
    epochs: int
    by_loss: bool
    """Whether equal quality is a matter of loss (within 2 %) or of accuracy (0.5 points)."""
    ways: tuple[Way, ...]
    note: str = ""
    """For the reader."""

    def swarm(self, way: Way, seed: int, data_dir: str) -> Run:
        """The whole training of one swarm."""
        return Run(
            self.task,
            self.builtin,
            data_dir,
            way.settings,
            self.peers,
            self.epochs // way.epochs,
            seed=seed,
        )

    def quality(self, point: Point) -> float:
        """What is compared: loss, or accuracy in %."""
        return point.loss if self.by_loss else 100 * point.accuracy


PLAIN = Way("none", 1, all_seeds=True)
COMPARISONS = (
    Comparison(
        name="MNIST",
        stem="learning-bytes-mnist",
        task="mnist",
        builtin=True,
        peers=4,
        epochs=12,
        by_loss=False,
        ways=(
            PLAIN,
            Way("topk:128", 2, outer_learning_rate=2.0, all_seeds=True),
            Way("topk:256", 2, outer_learning_rate=2.0),
            Way("int8", 2),
            Way("int4", 2),
        ),
    ),
    Comparison(
        name="character transformer",
        stem="learning-bytes-text",
        task=str(ROOT / "examples" / "char_transformer.py"),
        builtin=False,
        peers=32,
        epochs=24,
        by_loss=True,
        ways=(
            PLAIN,
            Way("int8", 2, outer_momentum=0.8, exchange="allreduce", all_seeds=True),
            Way("int4", 2, outer_momentum=0.8, exchange="allreduce"),
        ),
        note=(
            " So many peers take few steps an epoch: in the end both have\nmore to learn. The outer"
            " momentum makes good for exchanging half as often, and for rounding."
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A swarm's curve, and what it cost to find it out."""

    points: list[Point]
    cpu_seconds: float


def learn(run: Run, label: str, kept: Path | None) -> Outcome:
    """In a process of its own: one thread, so that results do not depend on the machine's cores.

    ``kept``: where the outcome is taken from if it is there, and written to else.
    """
    if kept is not None and kept.exists():
        return msgspec.json.decode(kept.read_bytes(), type=Outcome)
    torch.set_num_threads(1)
    began = time.process_time()
    outcome = Outcome(run_swarm(run, label=label), time.process_time() - began)
    if kept is not None:
        kept.write_bytes(msgspec.json.encode(outcome))
    return outcome


def learn_all(
    seeds: Sequence[int], jobs: int, data_dir: str, keep: Path | None
) -> dict[str, dict[tuple[Way, int], Outcome]]:
    """All swarms of all comparisons, by comparison, way and seed; ``jobs`` at a time."""
    outcomes: dict[str, dict[tuple[Way, int], Outcome]] = {}
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending = {
            (comparison.name, way, seed): pool.submit(
                learn,
                comparison.swarm(way, seed, data_dir),
                f"{comparison.name}, {way.name}, seed {seed}",
                keep and keep / f"{comparison.stem}-{comparison.epochs}-{way.stem}-seed{seed}.json",
            )
            for comparison in COMPARISONS
            for way in comparison.ways
            for seed in (seeds if way.all_seeds else seeds[:1])
        }
        for (name, way, seed), future in pending.items():
            outcomes.setdefault(name, {})[way, seed] = future.result()
    return outcomes


@dataclass(frozen=True, slots=True)
class Result:
    """What one way came to, over its seeds, beside the plain one with the same seeds."""

    way: Way
    quality: list[float]
    worse: float
    """In points of accuracy, or percent of loss; negative where it is better."""
    exchanges: int
    sent: float
    """Bytes, by each peer in all."""
    times_fewer: float
    """The plain way's bytes to these."""
    times_smaller: float
    """An update in fp32 to one as it is encoded here."""

    @property
    def fewer_copies(self) -> float:
        """Everyone's update to everyone is n - 1 copies of a model, all-reduce 2 (n - 1) / n."""
        return self.times_fewer / self.times_smaller / self.way.epochs


def results_of(
    comparison: Comparison, outcomes: dict[tuple[Way, int], Outcome], seeds: Sequence[int]
) -> list[Result]:
    """For each way."""
    results = []
    for way in comparison.ways:
        found = {seed: outcomes[way, seed].points[-1] for seed in seeds if (way, seed) in outcomes}
        plain = [outcomes[PLAIN, seed].points[-1] for seed in found]
        quality = [comparison.quality(point) for point in found.values()]
        own = statistics.mean(quality)
        reference = statistics.mean(comparison.quality(point) for point in plain)
        sent = statistics.mean(point.bytes_sent for point in found.values()) / comparison.peers
        plain_sent = statistics.mean(point.bytes_sent for point in plain) / comparison.peers
        copies = comparison.peers / 2 if way.exchange == "allreduce" else 1.0
        results.append(
            Result(
                way,
                quality,
                100 * (own / reference - 1) if comparison.by_loss else reference - own,
                comparison.epochs // way.epochs,
                sent,
                plain_sent / sent,
                plain_sent / sent / way.epochs / copies,
            )
        )
    return results


def row_of(comparison: Comparison, result: Result) -> list[str]:
    """In the table of a task."""
    digits = 4 if comparison.by_loss else 2
    return [
        result.way.name,
        " ".join(f"{each:.{digits}f}" for each in result.quality),
        f"{result.worse:+.2f} %" if comparison.by_loss else f"{0.0 - result.worse:+.2f}",
        f"{result.exchanges}",
        f"{result.sent / result.exchanges / 1e3:,.1f}",
        f"{result.sent / 1e6:.3f}",
        f"{result.way.epochs}",
        f"{result.fewer_copies:.0f}",
        f"{result.times_smaller:.1f}",
        f"**{result.times_fewer:.1f}**",
    ]


def promises_of(comparison: Comparison, results: Sequence[Result]) -> list[Promise]:
    """Of the best of the ways that are cheap enough."""
    unit, within = (" %", WITHIN_PERCENT) if comparison.by_loss else (" points", WITHIN_POINTS)
    cheap = [result for result in results if result.times_fewer >= TIMES_FEWER]
    best = min(cheap or results, key=lambda result: result.worse)
    quality = "loss" if comparison.by_loss else "accuracy"
    return [
        Promise(
            f"{comparison.name}, {best.way.name}, times fewer bytes",
            best.times_fewer,
            at_least=TIMES_FEWER,
        ),
        Promise(f"its {quality} is worse by", best.worse, at_most=within, unit=unit),
    ]


def section_of(
    comparison: Comparison,
    outcomes: dict[tuple[Way, int], Outcome],
    results: Sequence[Result],
    seeds: Sequence[int],
) -> str:
    """What docs/learning-bytes.md says about one task."""
    quality = "final loss" if comparison.by_loss else "final accuracy in %"
    heads = [
        comparison.name,
        f"{quality}, by seed",
        "beside fp32, every epoch",
        "exchanges",
        "kB sent by a peer each time",
        "MB sent by a peer in all",
        "times fewer exchanges",
        "fewer copies",
        "smaller ones",
        "fewer bytes in all",
    ]
    settings = [
        f"- {way.name}: `--exchange {way.exchange} --local-epochs {way.epochs}"
        f" --compression {way.compression}"
        f" --outer-learning-rate {way.outer_learning_rate:g}"
        f" --outer-momentum {way.outer_momentum:g}`\n"
        for way in comparison.ways
    ]
    runs = [(way, seed) for way in comparison.ways for seed in seeds if (way, seed) in outcomes]
    curves = [
        [
            str(epoch),
            *(_cell(comparison, outcomes[run].points, epoch / run[0].epochs) for run in runs),
        ]
        for epoch in range(1, comparison.epochs + 1)
    ]
    word = "loss" if comparison.by_loss else "accuracy in %"
    return (
        f"## {comparison.name}\n\n"
        f"{comparison.peers} peers, {comparison.epochs} epochs,"
        f" seed {' and '.join(map(str, seeds))}.{comparison.note}\n\n"
        + table(heads, [row_of(comparison, result) for result in results])
        + "\n"
        + listed(promises_of(comparison, results))
        + f"\n![{word} by bytes]({comparison.stem}.png)\n\n"
        + "".join(settings)
        + f"\nTest {word} after each exchange:\n\n"
        + table(["epoch", *(f"{way.name}, seed {seed}" for way, seed in runs)], curves)
    )


def _cell(comparison: Comparison, points: list[Point], round_number: float) -> str:
    if round_number != int(round_number):
        return ""
    return f"{comparison.quality(points[int(round_number) - 1]):.{2 + comparison.by_loss}f}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True, help="where MNIST is")
    parser.add_argument("--seeds", default="1", help="such as 1,2; the first one is for all ways")
    parser.add_argument("--jobs", type=int, default=1, help="how many swarms at once")
    parser.add_argument(
        "--keep", type=Path, help="keep each swarm's curve here, and do not run again what is there"
    )
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    if arguments.keep is not None:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    outcomes = learn_all(seeds, arguments.jobs, arguments.data_dir, arguments.keep)
    cpu_minutes = sum(each.cpu_seconds for of in outcomes.values() for each in of.values()) / 60
    sections, promises = [], []
    for comparison in COMPARISONS:
        found = outcomes[comparison.name]
        results = results_of(comparison, found, seeds)
        promises += promises_of(comparison, results)
        sections.append(section_of(comparison, found, results, seeds))
        plot(
            {
                way.name: [
                    (point.bytes_sent / comparison.peers / 1e6, comparison.quality(point))
                    for point in found[way, seeds[0]].points
                ]
                for way in comparison.ways
            },
            DOCS / f"{comparison.stem}.png",
            x="MB sent by each peer so far",
            y="test loss" if comparison.by_loss else "test accuracy in %",
            log_x=True,
        )
    (DOCS / "learning-bytes.md").write_text(
        "# Bytes at equal quality\n\n"
        "All ways take the same number of steps on the same data, cut evenly among the peers; in"
        " the\nplainest one fp32 models go to everyone after every epoch. Bytes are those of the"
        " update files with\ntheir headers, once for each peer that they go to. Fewer exchanges,"
        " times fewer copies each time,\ntimes smaller ones, is fewer bytes in all. All-reduce"
        " sends each peer's update about twice, however\nmany peers there are, and so half as many"
        " times fewer copies as there are peers: it is for many. Real\npeers also tell each other"
        " where they stand: about 120 bytes a second to each other peer\n(`p2pd demo` with MNIST,"
        " four peers and top-k).\n\nWritten by"
        " `python -m benchmarks.learning.bytes_sent`, which takes"
        f" {cpu_minutes:.0f} minutes of a core. On one kind of\nprocessor the same seeds give the"
        " same numbers; another one adds up in another order, and final\naccuracies differ by a"
        " tenth of a point or two.\n\n" + "\n".join(sections)
    )
    check(promises)


if __name__ == "__main__":
    main()
