"""What a round costs each peer as a swarm grows, as the product's own cores do it in virtual time.

    python -m benchmarks.simulation --peers 16 32 64 128 --exchange mesh allreduce gossip
    python -m benchmarks.simulation --peers 16 1000 --exchange gossip --topology regular:4
    python -m benchmarks.simulation --churn-s 5 --liars 4

Prints the tables of docs/large-swarms.md; --json and --plot write files. Each swarm takes one core.
A thousand peers that gossip take some minutes; of those that agree, some dozens do.
"""

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from multiprocessing import get_context
from pathlib import Path

from benchmarks.simulation.scenario import Found, Scenario, measure


def _row(found: Found) -> dict[str, str]:
    scenario = Scenario(**found.scenario)
    kind = scenario.exchange
    if scenario.topology != "full":
        kind += f" {scenario.topology}"
    return {
        "exchange": kind,
        "peers": str(scenario.peers),
        "messages": f"{sum(found.messages.values()):.0f}",
        "KB of them": f"{sum(found.message_bytes.values()) / 1000:.1f}",
        "largest, KB": f"{found.largest_message_bytes / 1000:.1f}",
        "certificate, KB": f"{found.certificate_bytes / 1000:.1f}",
        "MB of model": f"{found.model_mb:.1f}",
        "round, s": f"{found.round_s:.2f}",
        "slowest, s": f"{found.slowest_round_s:.2f}",
        "CPU, ms": f"{found.cpu_ms:.0f}",
        "memory, MB": f"{found.memory_mb:.1f}",
        "rounds to 1 %": "" if kind[:6] != "gossip" else str(found.consensus_rounds or "more"),
    }


def table(rows: Sequence[dict[str, str]]) -> str:
    """In Markdown."""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    return "\n".join(lines)


def by_kind(results: Sequence[Found]) -> str:
    """Messages of each kind, and their bytes, for the largest swarm of each exchange."""
    largest: dict[tuple[str, str], Found] = {}
    for found in results:
        largest[found.scenario["exchange"], found.scenario["topology"]] = found
    rows = [
        {
            "exchange": f"{exchange} {topology}, {found.scenario['peers']} peers",
            "kind": kind,
            "messages": f"{count:.1f}",
            "bytes": f"{found.message_bytes[kind]:.0f}",
        }
        for (exchange, topology), found in largest.items()
        for kind, count in found.messages.items()
    ]
    return table(rows)


def _plotted(found: Found) -> tuple[float, ...]:
    messages, size = sum(found.messages.values()), sum(found.message_bytes.values())
    return messages, size / 1000, found.round_s, found.cpu_ms


def plot(results: Sequence[Found], path: Path) -> None:
    """Messages, their bytes, seconds and CPU by peers, as PNG."""
    from matplotlib import pyplot  # Only a plot needs it.

    figure, axes = pyplot.subplots(1, 4, figsize=(15, 3.6), dpi=100)
    shown = ("messages", "KB of messages", "seconds", "ms of CPU")
    series: dict[str, list[Found]] = {}
    for found in results:
        name = f"{found.scenario['exchange']} {found.scenario['topology']}"
        series.setdefault(name, []).append(found)
    for number, (axis, what) in enumerate(zip(axes, shown, strict=True)):
        for name, each in series.items():
            peers = [one.scenario["peers"] for one in each]
            values = [_plotted(one)[number] for one in each]
            axis.plot(peers, values, marker="o", markersize=3, label=name)
        axis.set(xlabel="peers", ylabel=f"{what}, each peer and round", xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Simulate, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--exchange", nargs="+", default=["mesh", "allreduce", "gossip"])
    parser.add_argument("--topology", help="full, ring or regular:K")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--training-s", type=float)
    parser.add_argument("--delay-ms", type=float)
    parser.add_argument("--mbit", type=float, help="of each line, each way")
    parser.add_argument("--model-mb", type=float, help="of an encoded update")
    parser.add_argument("--churn-s", type=float, help="one goes, one comes, so often; 0: never")
    parser.add_argument("--liars", type=int)
    usual = {one.name: one.default for one in fields(Scenario)}
    parser.set_defaults(**{name: usual[name] for name in usual.keys() - {"peers", "exchange"}})
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    given = vars(parser.parse_args())
    json_path, plot_path = given.pop("json"), given.pop("plot")
    sizes, exchanges = given.pop("peers"), given.pop("exchange")
    results = []
    for exchange in exchanges:
        for peers in sizes:
            scenario = Scenario(peers=peers, exchange=exchange, **given)
            # Its memory is its own, and is measured.
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                found = alone.submit(measure, scenario).result()
            results.append(found)
            if len(results) == 1:
                print(table([_row(found)]), flush=True)
            else:
                print(table([_row(found)]).splitlines()[-1], flush=True)
    print("", by_kind(results), sep="\n")
    if json_path is not None:
        json_path.write_text(json.dumps([asdict(found) for found in results], indent=1) + "\n")
    if plot_path is not None:
        plot(results, plot_path)


if __name__ == "__main__":
    main()
