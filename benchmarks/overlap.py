"""What a swarm on a 20 Mbit/s line costs a training script, with overlap and without.

    python -m benchmarks.overlap [--rate 20mbit --rounds 8 --steps 100 --turns 2] [--json]

Needs root and nftables. Two peers, each in a network namespace of its own behind a line of that
rate, run the same script of their own (overlap_script.py): its steps take 50 ms, and a round's
update, whole in float32, takes 1.9 s on that line. The same script also runs there without any
swarm. All three take turns; the figure is samples a second of both peers together. What
``swarm.step()`` took of the time stands beside it, which a busy machine changes less. Writes
docs/overlap.md, and exits with 1 if overlap has less than 0.95 of what the script has alone.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.promises import Promise, check, listed
from tests.interruption import unwind_when_interrupted
from tests.nat_swarm.nat_swarm import NatSwarm
from tests.natlab.lab import NatLab
from tests.system.real_swarm import wait_until

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "overlap.md"
SCRIPT = Path(__file__).with_name("overlap_script.py")
ALONE, OVERLAP, WAITING = "without any swarm", "swarm with `--overlap`", "swarm"
PEERS = ("a", "b")
MEASURED_S = 900.0
PROMISED = 0.95


@dataclass(frozen=True, slots=True)
class Line:
    """How the peers train, and on what line."""

    rate: str
    rounds: int
    steps: int

    def measure(self, kind: str) -> tuple[float, float]:
        """Samples a second of both peers together, and the larger of their shares of the time that
        ``swarm.step()`` took."""
        with (
            tempfile.TemporaryDirectory(prefix="p2pd-bench-") as directory,
            NatLab() as lab,
            ExitStack() as stack,
        ):
            swarm = stack.enter_context(NatSwarm(Path(directory), lab))
            server = lab.add_public_host("server")
            hosts = {name: lab.add_public_host(name) for name in PEERS}
            for host in hosts.values():
                lab.set_rate(host, self.rate)
            results = {name: swarm.directory / f"{name}.json" for name in PEERS}
            command = {
                name: [sys.executable, str(SCRIPT), str(result), str(self.rounds), str(self.steps)]
                for name, result in results.items()
            }
            if kind == ALONE:
                for name, host in hosts.items():
                    stack.enter_context(lab.popen(host, command[name], env=swarm.environ))
            else:
                options = ["--overlap"] if kind == OVERLAP else []
                work = ("--local-steps", str(self.steps), "--min-peers", str(len(PEERS)))
                _, uri = swarm.serve("serve", "server", server)
                words = ("--exchange", "mesh", *work, *options, "--", *command["a"], "-")
                swarm.create_at(server, uri, *words)
                for name, host in hosts.items():
                    swarm.join_at(host, name, "--", *command[name], "-")
            wait_until(
                f"{kind}: {self.rounds} rounds",
                lambda: all(result.exists() and result.read_text() for result in results.values()),
                MEASURED_S,
            )
            found = [json.loads(result.read_text()) for result in results.values()]
        rate = sum(float(one["samples_per_second"]) for one in found)
        return rate, max(float(one["share_in_step"]) for one in found)


def main() -> None:
    """Measure, print, and write the report."""
    unwind_when_interrupted()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overlap")
    parser.add_argument("--rate", default="20mbit")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100, help="of a round, of 50 ms each")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print JSON, write no report")
    options = parser.parse_args()
    line = Line(options.rate, options.rounds, options.steps)
    load_before = os.getloadavg()[0]
    rates: dict[str, list[float]] = {kind: [] for kind in (ALONE, OVERLAP, WAITING)}
    shares: dict[str, list[float]] = {kind: [] for kind in rates}
    for turn in range(options.turns):
        for kind in rates if turn % 2 == 0 else reversed(rates):
            rate, share = line.measure(kind)
            rates[kind].append(rate)
            shares[kind].append(share)
            print(f"{kind}: {rate:.1f} samples/s, {share:.1%} in step()", file=sys.stderr)
    ratios = {
        kind: statistics.median(
            one / alone for one, alone in zip(rates[kind], rates[ALONE], strict=True)
        )
        for kind in rates
    }
    promise = Promise(f"{OVERLAP} to {ALONE}", ratios[OVERLAP], at_least=PROMISED)
    if options.json:
        document = {"samples_per_second": rates, "ratios": ratios, "shares_in_step": shares}
        print(json.dumps({"schema": 1, **document}))
    else:
        report = describe(line, rates, ratios, shares, load_before) + listed([promise])
        print(report)
        REPORT.write_text(report)
    check([promise])


def describe(
    line: Line,
    rates: dict[str, list[float]],
    ratios: dict[str, float],
    shares: dict[str, list[float]],
    load_before: float,
) -> str:
    """The report, but for the promise."""
    lines = [
        "# What overlap is worth",
        "",
        f"Two peers that run one script of their own, each behind a line of {line.rate}/s, in",
        f"rounds of {line.steps} steps of 50 ms. A round's update, whole in float32, is 4.7 MB.",
        "Samples a second of both together, from the second round's end on, median of",
        f"{len(rates[ALONE])} turns and each of them, and the ratio to the same turn without any",
        f"swarm. All of it ran on {os.cpu_count()} cores (load average before: {load_before:.0f}).",
        "Written by `python -m benchmarks.overlap`; what overlap changes in results:",
        "[python-api.md](python-api.md).",
        "",
        "| | samples/s | each turn | ratio | of the time in `swarm.step()` |",
        "|---|--:|--:|--:|--:|",
    ]
    for kind, measured in rates.items():
        each = ", ".join(f"{rate:.1f}" for rate in measured)
        median = statistics.median(measured)
        share = statistics.median(shares[kind])
        lines.append(f"| {kind} | {median:.1f} | {each} | {ratios[kind]:.3f} | {share:.1%} |")
    return "\n".join([*lines, "", ""])


if __name__ == "__main__":
    main()
