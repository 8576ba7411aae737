"""How fast each kind of path is, beside a bare pyzmq ROUTER on the same lines of a laboratory.

    python -m benchmarks.path_throughput [--megabytes 200] [--repeat 3] [--json]

Needs root and nftables. In network namespaces: two public hosts that dial each other (direct), two
behind stateful firewalls that both have to open (punched, and by request ice and relay), and a host
for rendezvous and relay; all lines are alike, and as fast as the machine. What is measured are
daemons, `p2pd join --observe`, by `p2pd speed`: messages through session, path and kernel, checked
and confirmed. Between the firewalled hosts again: pyzmq ROUTER, a loop on the relay's host that
passes frames on with CURVE and does nothing else, and a data channel of aiortc, beside ice. All
take turns, each turn in the opposite order of the one before; ratios are of figures of one turn,
and medians count, since whatever else the machine does meets all of a turn alike. Writes
docs/path-throughput.md, and exits with 1 if a ratio is less than promised.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.promises import Promise, check, listed
from benchmarks.relay_throughput import (
    FRAME_BYTES,
    MEGA,
    PYZMQ,
    Keys,
    Run,
    Start,
    make_keys,
    measure,
)
from daemon.net.path_kind import PathKind
from tests.interruption import unwind_when_interrupted
from tests.nat_swarm.nat_swarm import NatSwarm
from tests.natlab.lab import Host, NatKind, NatLab
from tests.system.real_swarm import RealPeer

DOCS = Path(__file__).parents[1] / "docs"
REPORT = "path-throughput.md"
CONNECTED_S = 60.0
MEASURED_S = 300.0
LARGE_FRAME_BYTES = 1 << 20
PYZMQ_64K, PYZMQ_1M = "pyzmq ROUTER, 64 KiB frames", "pyzmq ROUTER, 1 MiB frames"
DATA_CHANNEL = "aiortc data channel"
DATA_CHANNEL_END = Path(__file__).with_name("data_channel.py")
PROMISES = (
    (PathKind.PUNCHED.value, (PathKind.DIRECT.value,), 0.8),
    (PathKind.RELAY.value, (PYZMQ_64K, PYZMQ_1M), 0.5),
)
"""What is to be how fast, beside the fastest of these."""


@dataclass
class Bench:
    """The laboratory with everything in it."""

    lab: NatLab
    swarm: NatSwarm
    server: Host
    firewalled: tuple[Host, Host]
    keys: Keys
    size: int

    def speed(self, sender: str, receiver: str, kind: PathKind) -> float:
        """MB/s from one observer to another."""
        done = self.swarm.run(
            *("speed", receiver, "--size", str(self.size), "--path", kind.value, "--json"),
            *("--state-dir", self.swarm.peers[sender].state_dir),
            within_s=MEASURED_S,
        )
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert (result["path"], result["bytes"]) == (kind.value, self.size)
        return float(result["mb_per_s"])

    def forwarded(self, frame_bytes: int) -> float:
        """MB/s from one firewalled host to the other over a bare pyzmq ROUTER."""
        whole_frames = -(-self.size // frame_bytes) * frame_bytes
        run = Run(self.keys, whole_frames, frame_bytes, forwarder_host=self.server.address)
        sender, receiver = map(self._starter, self.firewalled)
        return measure(PYZMQ, run, (sender, self._starter(self.server), receiver)).mb_per_s

    def data_channel(self) -> float:
        """MB/s from one firewalled host to the other over a data channel of aiortc."""
        with ExitStack() as stack:
            sender, receiver = (
                stack.enter_context(
                    self.lab.popen(
                        host,
                        [sys.executable, DATA_CHANNEL_END, *arguments],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                        start_new_session=True,
                    )
                )
                for host, arguments in zip(
                    self.firewalled, (["send", str(self.size)], ["receive"]), strict=True
                )
            )
            for source, sink in ((sender, receiver), (receiver, sender)):
                assert source.stdout is not None
                print(source.stdout.readline(), end="", file=sink.stdin, flush=True)
            assert receiver.stdout is not None
            result = json.loads(receiver.stdout.readline())
            assert result["bytes"] == self.size
            return self.size / MEGA / float(result["seconds"])

    def _starter(self, host: Host) -> Start:
        # A process is born into the network of the thread that starts it.
        return lambda process: self.lab.call(host, process.start)


def main() -> None:
    """Measure, print, and write the report."""
    unwind_when_interrupted()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.path_throughput")
    parser.add_argument("--megabytes", type=int, default=200, help="per run, of 10^6 bytes")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON, write no report")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory(prefix="p2pd-bench-") as directory,
        NatLab() as lab,
        NatSwarm(Path(directory), lab) as swarm,
    ):
        bench = build(lab, swarm, options.megabytes * MEGA)
        rates = take_turns(measurements(bench), options.repeat)
    ratios = {name: within_turns(rates, name, others) for name, others, _ in PROMISES}
    if options.json:
        document = {"schema": 1, "bytes": bench.size, "mb_per_s": rates, "ratios": ratios}
        print(json.dumps(document))
    else:
        report = describe(rates, ratios, options.megabytes, load_before)
        print(report)
        (DOCS / REPORT).write_text(report)
    check(promises_of(ratios))


def build(lab: NatLab, swarm: NatSwarm, size: int) -> Bench:
    """Everything started, and everybody connected."""
    server = lab.add_public_host("server")
    sites = {
        name: lab.add_site(name, kind).host
        for name, kind in (
            ("open-1", NatKind.OPEN),
            ("open-2", NatKind.OPEN),
            ("walled-1", NatKind.FIREWALLED),
            ("walled-2", NatKind.FIREWALLED),
        )
    }
    _, uri = swarm.serve("serve", "server", server)
    swarm.create_at(server, uri, "--task", "digits")
    peers = {name: swarm.join_at(host, name, "--observe") for name, host in sites.items()}
    for one, two, kind in (
        ("open-1", "open-2", PathKind.DIRECT),
        ("walled-1", "walled-2", PathKind.PUNCHED),
    ):
        for first, second in ((one, two), (two, one)):
            wait_path(peers[first], second, kind)
    return Bench(lab, swarm, server, (sites["walled-1"], sites["walled-2"]), make_keys(), size)


def wait_path(peer: RealPeer, other: str, kind: PathKind) -> None:
    """Return when ``peer`` reaches the other one over a path of that kind."""
    peer.wait_status(
        f"reaches {other} over a {kind.value} path",
        lambda status: any(seen.name == other and seen.path == kind for seen in status.peers),
        CONNECTED_S,
    )


def measurements(bench: Bench) -> dict[str, Callable[[], float]]:
    """What is measured, by its name in the report."""
    firewalled = {
        kind.value: lambda kind=kind: bench.speed("walled-1", "walled-2", kind)
        for kind in (PathKind.PUNCHED, PathKind.RELAY, PathKind.ICE)
    }
    return {
        PathKind.DIRECT.value: lambda: bench.speed("open-1", "open-2", PathKind.DIRECT),
        **firewalled,
        PYZMQ_64K: lambda: bench.forwarded(FRAME_BYTES),
        PYZMQ_1M: lambda: bench.forwarded(LARGE_FRAME_BYTES),
        DATA_CHANNEL: bench.data_channel,
    }


def take_turns(measured: dict[str, Callable[[], float]], count: int) -> dict[str, list[float]]:
    """So many runs of each, MB/s."""
    rates: dict[str, list[float]] = {name: [] for name in measured}
    for turn in range(count):
        names = list(measured)
        for name in names if turn % 2 == 0 else reversed(names):
            rates[name].append(measured[name]())
    return rates


def within_turns(rates: dict[str, list[float]], name: str, others: Sequence[str]) -> float:
    """The median of the ratios to the fastest of others."""
    fastest = (max(turn) for turn in zip(*(rates[other] for other in others), strict=True))
    turns = zip(rates[name], fastest, strict=True)
    ratio: float = statistics.median(rate / other for rate, other in turns)
    return ratio


def describe(
    rates: dict[str, list[float]], ratios: dict[str, float], megabytes: int, load_before: float
) -> str:
    """The report."""
    turns = len(next(iter(rates.values())))
    lines = [
        "# Throughput by kind of path",
        "",
        f"{megabytes} MB from one host to another in a laboratory of network namespaces, MB/s,",
        f"median of {turns} turns and each of them. All of it ran on {os.cpu_count()} cores",
        f"(load average before: {load_before:.0f}): ratios, of the same turn each, say more than",
        "rates. Written by `python -m benchmarks.path_throughput`; its first lines say what is",
        "measured and how.",
        "",
        "| | median | each turn |",
        "|---|--:|--:|",
    ]
    for name, measured in rates.items():
        each = ", ".join(f"{rate:.0f}" for rate in measured)
        lines.append(f"| {name} | {statistics.median(measured):.0f} | {each} |")
    lines.append("")
    return "\n".join(lines) + "\n" + listed(promises_of(ratios))


def promises_of(ratios: dict[str, float]) -> list[Promise]:
    """How fast what is to be, beside what."""
    return [
        Promise(
            f"{name} to {others[0]}"
            if len(others) == 1
            else f"{name} to the faster of {' and '.join(others)}",
            ratios[name],
            at_least=promised,
        )
        for name, others, promised in PROMISES
    ]


if __name__ == "__main__":
    main()
