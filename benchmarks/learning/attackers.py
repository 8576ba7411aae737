"""Training with attackers among the peers: accuracy under each attack, for each robust rule.

    python -m benchmarks.learning.attackers --data-dir DIR [--part ring|mesh] [--seed 1]

MNIST. Writes docs/learning-attackers.md (the section of the part that was run; the other one stays)
and a picture for each part; exits with 1 if the rule to take bears less than is promised. On an
idle core each part takes about an hour.
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
from benchmarks.promises import Promise, check, listed
from ml.aggregate.mixing import TRIAL

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = DOCS / "learning-attackers.md"
TITLE = "# Attackers among the peers"
RING_TITLE = "## A ring of five with two attackers at each"
MESH_TITLE = "## A mesh of ten, three of them attackers"

RING_RULES = ("mean", "median", "centered_clip", TRIAL)
MESH_RULES = ("mean", "trimmed_mean:0.3", "median", "krum:3", "centered_clip")
RING_RULE, MESH_RULE = TRIAL, "centered_clip"
"""Those to take."""
NO_ATTACK = "none"
ALONE = "alone"
RING_PERCENT = 92.0
RING_DISTANCE = 0.1
"""As a fraction of that of peers that stay alone."""
MESH_POINTS = 1.0
"""Lost to an attack at most."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True, help="where MNIST is")
    parser.add_argument("--part", choices=("ring", "mesh"), help="only this one")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sections = _sections_of(DOCUMENT.read_text() if DOCUMENT.exists() else TITLE + "\n\n")
    promises: list[Promise] = []
    if arguments.part != "mesh":
        sections[RING_TITLE] = ring_section(
            MnistShards.load(arguments.data_dir, RING_PEERS, arguments.seed), promises
        )
    if arguments.part != "ring":
        sections[MESH_TITLE] = mesh_section(
            MnistShards.load(arguments.data_dir, MESH_PEERS, arguments.seed), promises
        )
    sections[TITLE] = INTRODUCTION
    order = [title for title in (TITLE, RING_TITLE, MESH_TITLE) if title in sections]
    DOCUMENT.write_text("\n".join(f"{title}\n\n{sections[title].strip()}\n" for title in order))
    check(promises)


def ring_section(data: MnistShards, promises: list[Promise]) -> str:
    """Run the ring under everything, and tell. What is promised of it is added to ``promises``."""
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
    kept = []
    for name in RING_ATTACKS:
        found_one = results[RING_RULE, name]
        ratio = found_one.distance / alone.distance
        kept += [
            Promise(
                f"{RING_RULE}, {name}, accuracy", 100 * found_one.accuracy, RING_PERCENT, unit=" %"
            ),
            Promise(f"{RING_RULE}, {name}, distance", ratio, at_most=RING_DISTANCE),
        ]
    promises += kept
    return RING_TEXT.format(
        promises=listed(kept),
        alone=accuracy(alone),
        distance=f"{alone.distance:.2f}",
        rules=table(["aggregation", *attacks], rows),
        variants=table(["trial", "accuracy in %", "worst peer", "distance"], variants),
    )


def mesh_section(data: MnistShards, promises: list[Promise]) -> str:
    """The same for the mesh."""
    names = (NO_ATTACK, *MESH_ATTACKS)
    results: dict[tuple[str, str], MeshResult] = {}
    for rule in MESH_RULES:
        for name in names:
            attack = None if name == NO_ATTACK else name
            result = results[rule, name] = run_mesh(data, rule, attack)
            print(f"mesh: {rule:16} {name:16} accuracy {result.accuracy:.4f}", flush=True)
    rows = []
    lost: dict[str, float] = {}
    for rule in MESH_RULES:
        found = [100 * results[rule, name].accuracy for name in names]
        lost[rule] = found[0] - min(found[1:])
        rows.append([rule, *(f"{one:.2f}" for one in found), f"{lost[rule]:.2f}"])
    kept = [
        Promise(f"{MESH_RULE}, lost at most", lost[MESH_RULE], at_most=MESH_POINTS, unit=" points")
    ]
    promises += kept
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
    return MESH_TEXT.format(
        rules=table(["aggregation", *names, "lost at most"], rows), promises=listed(kept)
    )


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
