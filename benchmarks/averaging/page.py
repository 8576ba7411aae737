"""docs/averaging.md, made from what was measured.

The figures stand in docs/averaging.json: a case that is measured anew takes the place of what is
there of it, so that large cases need not be measured each time.
"""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec

from benchmarks.averaging.measured import Case, Measured

DOCS = Path(__file__).parents[2] / "docs"
PAGE, FIGURES = DOCS / "averaging.md", DOCS / "averaging.json"
SCHEMA = 1


class CaseMeasured(msgspec.Struct):
    """All that was measured of one case in one run."""

    peers: int
    parameters: int
    systems: dict[str, list[Measured]]
    """One for each turn."""


class _Figures(msgspec.Struct):
    schema: int
    measured: list[CaseMeasured]


def keep(case: Case, taken: dict[str, list[Measured]], file: Path) -> None:
    """Put what was measured of ``case`` into ``file``, in place of what is there of it."""
    old = load(file) if file.exists() else []
    others = [one for one in old if (one.peers, one.parameters) != (case.peers, case.parameters)]
    measured = sorted(
        [*others, CaseMeasured(case.peers, case.parameters, taken)],
        key=lambda one: (one.parameters, one.peers),
    )
    document = {"schema": SCHEMA, "measured": [asdict_of(one) for one in measured]}
    file.write_text(json.dumps(document, indent=1) + "\n")


def load(file: Path) -> list[CaseMeasured]:
    """The cases in ``file``."""
    return msgspec.json.decode(file.read_bytes(), type=_Figures).measured


def asdict_of(one: CaseMeasured) -> dict[str, object]:
    """For a JSON document."""
    turns = {system: [asdict(turn) for turn in turns] for system, turns in one.systems.items()}
    return {"peers": one.peers, "parameters": one.parameters, "systems": turns}


def rows(taken: Mapping[str, Sequence[Measured]]) -> Iterator[tuple[str, ...]]:
    """One for each system: median, least and most seconds of a round by turn, beside gloo and
    hivemind in the same turn, CPU seconds of a peer and round, peak MB of a peer."""
    for system, turns in taken.items():
        medians = [statistics.median(turn.round_s) for turn in turns]
        yield (
            system,
            f"{statistics.median(medians):.3g}",
            f"{min(medians):.3g}",
            f"{max(medians):.3g}",
            _beside(medians, taken.get("gloo", ()), inverse=False),
            _beside(medians, taken.get("hivemind", ()), inverse=True),
            f"{statistics.median(turn.cpu_s for turn in turns):.2f}",
            f"{max(turn.peak_bytes for turn in turns) / 1e6:.0f}",
        )


HEAD = (
    "peers x millions",
    "system",
    "median s",
    "least",
    "most",
    "times gloo",
    "times as fast as hivemind",
    "CPU s a peer",
    "peak MB a peer",
)


def table(cases: Sequence[CaseMeasured]) -> str:
    """All cases, in Markdown."""
    lines = [_line(HEAD), _line(("---", "---", *["--:"] * (len(HEAD) - 2)))]
    for case in cases:
        name = f"{case.peers} x {case.parameters / 1e6:g}"
        lines += [_line((name, *row)) for row in rows(case.systems)]
    return "\n".join(lines)


def _beside(medians: Sequence[float], others: Sequence[Measured], *, inverse: bool) -> str:
    ratios = [
        median / statistics.median(other.round_s)
        for median, other in zip(medians, others, strict=False)
    ]
    if not ratios:
        return ""
    ratio = statistics.median(ratios)
    return f"{1 / ratio if inverse else ratio:.1f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_page(cases: Sequence[CaseMeasured], machine: str) -> None:
    """Write docs/averaging.md."""
    PAGE.write_text(TEXT.format(table=table(cases), machine=machine))


TEXT = """\
# A round of averaging beside others

How long a round takes when the training is one step: from the end of one round to the end of the
next one, all of it. That is one step, its update, the exchange, agreement on what is averaged, the
next state in a file and in the trainer's memory. Real processes, all on one machine and its
loopback, so that what is compared is what each system does with the processor, and not a line.

- *gloo*: `torch.distributed`'s all-reduce of one float32 tensor, plain TCP. Nothing is encrypted,
  signed, checked, agreed on or stored, and nobody may come or go: the limit.
- *hivemind* 1.1.12: matchmaking and all-reduce of one float32 tensor, as its users run it.
- *p2pd*: whole rounds with `--exchange mesh` and `--exchange allreduce`, float32 and int8.
  *p2pd-gossip* is `--topology regular:2`: each averages with two others, without equal bits.

All systems of a case take turns in one run, each turn in the opposite order of the one before. A
turn's figure is the median of its rounds. Ratios are of figures of one turn. CPU is of all
processes of one peer, for one round; memory is the most that they held together.

A machine that does something else too, or has fewer cores than processes, stretches all of it, and
most what runs in most processes: a p2pd peer is three. CPU seconds say what such a machine cannot.

Measured on {machine}. Written by `python -m benchmarks.averaging --page`.

{table}

## How to measure it

```
make bench BENCH=averaging BENCH_ARGS="--peers 4 --millions 11.7 --page"
```

It installs hivemind into an environment of its own (`--environment DIR` keeps that; `--system gloo
p2pd-allreduce` leaves hivemind out). A case that is measured anew takes the place of what stands in
`docs/averaging.json` of it, where all rounds are.

How often a peer goes over the model's bytes in a round, and where, is drawn in ARCHITECTURE.md.
"""
