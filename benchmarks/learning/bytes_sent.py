"""Bytes at equal final quality: fp32 models to everyone after every epoch, or what p2pd can do.

    python -m benchmarks.learning.bytes_sent --data-dir DIR [--peers 4]

MNIST (final accuracy within 0.5 points) and the character transformer (loss within 2 %). The sparse
runs send top-k pseudo-gradients with 2-bit values and error feedback (SparseLoCo, arXiv 2508.15706)
after many local steps, with an outer Nesterov step (DiLoCo, arXiv 2311.08105). Both see as many
samples. Writes docs/learning-bytes.md and .png.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from benchmarks.learning.local_swarm import Point, Run, run_swarm
from benchmarks.learning.report import plot, table
from protocol.swarm import RoundSettings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A task, the plain way of training it, and the sparing one."""

    name: str
    plain: Run
    sparse: Run


def comparisons(data_dir: str, peers: int) -> list[Comparison]:
    """What is compared."""
    text = str(ROOT / "examples" / "char_transformer.py")
    return [
        Comparison(
            "MNIST",
            Run("mnist", True, data_dir, RoundSettings(), peers, 8),
            Run(
                "mnist",
                True,
                data_dir,
                RoundSettings(
                    local_amount=4,
                    compression="topk:64",
                    outer_learning_rate=1.0,
                    outer_momentum=0.0,
                ),
                peers,
                2,
            ),
        ),
        Comparison(
            "character transformer",
            Run(text, False, data_dir, RoundSettings(local_unit="epochs"), peers, 8),
            Run(
                text,
                False,
                data_dir,
                RoundSettings(
                    local_unit="epochs",
                    local_amount=1,
                    compression="topk:64",
                    outer_learning_rate=0.7,
                    outer_momentum=0.6,
                ),
                peers,
                8,
            ),
        ),
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True, help="where MNIST is")
    parser.add_argument("--peers", type=int, default=4)
    arguments = parser.parse_args()
    rows: list[list[str]] = []
    series: dict[str, list[tuple[float, float]]] = {}
    for comparison in comparisons(arguments.data_dir, arguments.peers):
        results: dict[str, list[Point]] = {}
        for way, run in (("plain", comparison.plain), ("sparse", comparison.sparse)):
            label = f"{comparison.name}, {way}"
            results[way] = run_swarm(run, label=label)
            series[label] = [
                (point.bytes_sent / 1e6, 100 * point.accuracy) for point in results[way]
            ]
        plain, sparse = results["plain"][-1], results["sparse"][-1]
        for way, point in (("fp32, every epoch", plain), ("sparse", sparse)):
            rows.append(
                [
                    f"{comparison.name}, {way}",
                    f"{point.bytes_sent / 1e6:.3f}",
                    f"{100 * point.accuracy:.2f}",
                    f"{point.loss:.4f}",
                    f"{plain.bytes_sent / point.bytes_sent:.0f} x",
                ]
            )
    heads = ["", "MB sent, all peers", "accuracy in %", "loss", "fewer bytes"]
    (DOCS / "learning-bytes.md").write_text(
        f"# Bytes at equal quality\n\n{arguments.peers} peers, updates to everyone (mesh). Written"
        " by `python -m benchmarks.learning.bytes_sent`.\n\n"
        + table(heads, rows)
        + "\n![accuracy by bytes](learning-bytes.png)\n"
    )
    plot(series, DOCS / "learning-bytes.png", x="MB sent by all peers", y="accuracy in %")


if __name__ == "__main__":
    main()
