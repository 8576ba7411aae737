"""Whether seeded swarms still end in the states in which they ended at the last release.

    python -m benchmarks.same [--only WORD] [--p2pd FILE] [--keep-as-baseline]

Each swarm is founded anew, trains a few rounds with real processes on loopback, and exports its
states; their digests must be those in digests.json. The greater part trains a task that gives the
same bits on every machine. The rest trains real models, whose digests hold for one processor and
one version of torch: elsewhere they are "not comparable", unless both trees are run there, one
with ``--keep-as-baseline``. Takes about five minutes on two idle cores. Exits with 1 where
something differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.same.cases import CASES, Case
from benchmarks.same.facts import facts_of
from benchmarks.same.swarm import UnfinishedError, digests_of
from tests.interruption import unwind_when_interrupted

BASELINE = Path(__file__).with_name("digests.json")
TRIES = 3
"""A busy machine may be too slow for a peer to take part in every round, which then shows as other
digests; what differs each time differs for another reason."""
SHOWN = 16


@dataclass(frozen=True, slots=True)
class Baseline:
    """The digests by case, and for which machine those of real training hold."""

    release: str
    facts: Mapping[str, str]
    digests: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls) -> "Baseline":
        """What is in the tree."""
        return cls(**json.loads(BASELINE.read_text()))


def main() -> None:
    """Run, compare, print a line for each swarm."""
    unwind_when_interrupted()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same")
    parser.add_argument(
        "--only", metavar="WORD", default="", help="the swarms with this in their names"
    )
    parser.add_argument(
        "--p2pd",
        metavar="FILE",
        type=Path,
        default=Path(sys.executable).with_name("p2pd"),
        help="the command to run, of this or another installation (default: beside this Python)",
    )
    parser.add_argument(
        "--keep-as-baseline",
        metavar="RELEASE",
        help="write the digests into digests.json, under this name, instead of comparing them",
    )
    arguments = parser.parse_args()
    chosen = [case for case in CASES if arguments.only in case.name]
    if not chosen:
        parser.error(f"no swarm has {arguments.only!r} in its name")
    p2pd = arguments.p2pd.absolute()
    facts = facts_of(p2pd.with_name("python"))
    if arguments.keep_as_baseline:
        _keep(arguments.keep_as_baseline, chosen, facts, p2pd)
    else:
        sys.exit(_compare(chosen, Baseline.read(), facts, p2pd))


def _compare(
    cases: Sequence[Case], baseline: Baseline, facts: Mapping[str, str], p2pd: Path
) -> int:
    unlike = [name for name in facts if facts[name] != baseline.facts.get(name)]
    results = []
    for case in cases:
        if unlike and not case.is_exact:
            results.append("not comparable")
            print(f"{case.name:30} not comparable: other {', '.join(unlike)}", flush=True)
            continue
        started = time.monotonic()
        wanted = list(baseline.digests[case.name])
        seen: list[list[str]] = []
        while len(seen) < TRIES and wanted not in seen:
            seen.append(_run(case, p2pd))
        results.append("same" if wanted in seen else "OTHER")
        seconds = f"{time.monotonic() - started:5.0f} s"
        tries = f", try {len(seen)}" if len(seen) > 1 else ""
        print(f"{case.name:30} {results[-1]:6} {seconds}{tries}", flush=True)
        if wanted not in seen:
            print(f"    {baseline.release}: {_shown(wanted)}")
            for digests in seen:
                print(f"    now: {_shown(digests)}", flush=True)
    counts = ", ".join(f"{results.count(word)} {word}" for word in dict.fromkeys(results))
    print(f"against {baseline.release}: {counts}")
    return 1 if "OTHER" in results else 0


def _keep(release: str, cases: Sequence[Case], facts: Mapping[str, str], p2pd: Path) -> None:
    digests = {}
    for case in cases:
        first, second = _run(case, p2pd), _run(case, p2pd)
        if first != second or any(":" in digest for digest in first):
            raise SystemExit(
                f"{case.name} ends otherwise each time: {_shown(first)}, {_shown(second)}"
            )
        digests[case.name] = first
        print(f"{case.name:30} {_shown(first)}", flush=True)
    document = {"release": release, "facts": facts, "digests": digests}
    BASELINE.write_text(json.dumps(document, indent=2) + "\n")


def _run(case: Case, p2pd: Path) -> list[str]:
    """The digests, or in their place what went wrong."""
    with tempfile.TemporaryDirectory(prefix="p2pd-same-") as directory:
        try:
            return digests_of(case, Path(directory), p2pd)
        except (UnfinishedError, AssertionError, subprocess.TimeoutExpired) as error:
            return [f"failed: {error}"]


def _shown(digests: Sequence[str]) -> str:
    return " ".join(
        digest if digest.startswith("failed: ") else digest[:SHOWN] for digest in digests
    )


if __name__ == "__main__":
    main()
