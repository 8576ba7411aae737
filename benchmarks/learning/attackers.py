"""Training with attackers among the peers: accuracy under each attack, for each robust rule.

    python -m benchmarks.learning.attackers --data-dir DIR [--part ring|mesh] [--seed 1]

MNIST. Writes docs/learning-attackers.md (the section of the part that was run; the other one stays)
and a picture for each part. On an idle core each part takes about an hour.
"""

import argparse
import math
from pathlib import Path

import torch

from benchmarks.learning.attacked_mesh import ATTACKS as MESH_ATTACKS
from benchmarks.learning.attacked_mesh import PEERS as MESH_PEERS
from benchmarks.learning.attacked_mesh import MeshResult, run_mesh
from benchmarks.learning.attacked_ring import ATTACKS as RING_ATTACKS
from benchmarks.learning.attacked_ring import PEERS as RING_PEERS
from benchmarks.learning.attacked_ring import VARIANTS, Attack, RingResult, run_ring
from benchmarks.learning.attackers_text import INTRODUCTION, MESH_TEXT, RING_TEXT
from benchmarks.learning.mnist_shards import MnistShards
from benchmarks.learning.report import plot, table
from ml.mixing import TRIAL

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = DOCS / "learning-attackers.md"
TITLE = "# Attackers among the peers"
RING_TITLE = "## A ring of five with two attackers at each"
MESH_TITLE = "## A mesh of ten, three of them attackers"

RING_RULES = ("mean", "median", "centered_clip", TRIAL)
MESH_RULES = ("mean", "trimmed_mean:0.3", "median", "krum:3", "centered_clip")
NO_ATTACK = "none"
ALONE = "alone"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True, help="where MNIST is")
    parser.add_argument("--part", choices=("ring", "mesh"), help="only this one")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sections = _sections_of(DOCUMENT.read_text() if DOCUMENT.exists() else TITLE + "\n\n")
    if arguments.part != "mesh":
        sections[RING_TITLE] = ring_section(
            MnistShards.load(arguments.data_dir, RING_PEERS, arguments.seed)
        )
    if arguments.part != "ring":
        sections[MESH_TITLE] = mesh_section(
            MnistShards.load(arguments.data_dir, MESH_PEERS, arguments.seed)
        )
    sections[TITLE] = INTRODUCTION
    order = [title for title in (TITLE, RING_TITLE, MESH_TITLE) if title in sections]
    DOCUMENT.write_text("\n".join(f"{title}\n\n{sections[title].strip()}\n" for title in order))


def ring_section(data: MnistShards) -> str:
    """Run the ring under everything, and tell."""
    attacks: dict[str, Attack | None] = {NO_ATTACK: None, **RING_ATTACKS}
    results: dict[tuple[str, str], RingResult] = {}

    def run(rule: str | None, name: str, attack: Attack | None) -> None:
        result = run_ring(data, rule, attack)
        results[rule or ALONE, name] = result
        print(
            f"ring: {rule or ALONE:14} {name:26} accuracy {result.accuracy:.4f}"
            f" (worst {result.worst_accuracy:.4f})  distance {result.distance:.3f}",
            flush=True,
        )

    run(None, NO_ATTACK, None)
    for rule in reversed(RING_RULES):
        for name, attack in attacks.items():
            run(rule, name, attack)
    for name, attack in VARIANTS.items():
        run(TRIAL, name, attack)
    alone = results[ALONE, NO_ATTACK]

    def accuracy(result: RingResult) -> str:
        return f"{100 * result.accuracy:.1f}"

    def distance(result: RingResult) -> str:
        if not math.isfinite(result.distance):
            return "no numbers"
        return f"{result.distance / alone.distance:.3f}"

    rows = []
    for rule in RING_RULES:
        found = [results[rule, name] for name in attacks]
        rows.append([rule, *(f"{accuracy(one)} ({distance(one)})" for one in found)])
    variants = [
        [
            name,
            accuracy(results[TRIAL, name]),
            f"{100 * results[TRIAL, name].worst_accuracy:.1f}",
            distance(results[TRIAL, name]),
        ]
        for name in (*attacks, *VARIANTS)
    ]
    plot(
        {ALONE: _percent(alone.curve)}
        | {
            f"{rule}, {name}": _percent(results[rule, name].curve)
            for rule in ("mean", TRIAL)
            for name in attacks
            if results[rule, name].curve
        },
        DOCS / "learning-attackers-ring.png",
        x="iteration",
        y="mean accuracy in %",
    )
    return RING_TEXT.format(
        alone=accuracy(alone),
        distance=f"{alone.distance:.2f}",
        rules=table(["aggregation", *attacks], rows),
        variants=table(["trial", "accuracy in %", "worst peer", "distance"], variants),
    )


def mesh_section(data: MnistShards) -> str:
    """Run the mesh under everything, and tell."""
    names = (NO_ATTACK, *MESH_ATTACKS)
    results: dict[tuple[str, str], MeshResult] = {}
    for rule in MESH_RULES:
        for name in names:
            attack = None if name == NO_ATTACK else name
            result = results[rule, name] = run_mesh(data, rule, attack)
            print(f"mesh: {rule:16} {name:16} accuracy {result.accuracy:.4f}", flush=True)
    rows = []
    for rule in MESH_RULES:
        found = [results[rule, name].accuracy for name in names]
        lost = found[0] - min(found[1:])
        rows.append([rule, *(f"{100 * one:.2f}" for one in found), f"{100 * lost:.2f}"])
    plot(
        {
            f"{rule}, {name}": _percent(results[rule, name].curve)
            for rule in ("mean", "centered_clip")
            for name in names
        },
        DOCS / "learning-attackers-mesh.png",
        x="round",
        y="accuracy in %",
        each_style=len(names),
    )
    return MESH_TEXT.format(rules=table(["aggregation", *names, "lost at most"], rows))


def _percent(curve: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, 100 * y) for x, y in curve]


def _sections_of(text: str) -> dict[str, str]:
    """By heading, the whole heading line."""
    sections: dict[str, str] = {}
    for part in text.replace("\n## ", "\n\x00## ").split("\x00"):
        title, _, body = part.partition("\n")
        sections[title] = body
    return sections


if __name__ == "__main__":
    main()
