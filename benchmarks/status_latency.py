"""How soon ``p2pd status`` answers while training saturates every core.

    python -m benchmarks.status_latency [--peers 2] [--samples 30]

Starts a swarm of real processes on loopback, each worker with as many threads as there are cores,
and runs the command again and again, as a user would: a new process each time, ``--json``. Beside
it stands the same command while the peers are paused, and the daemon's own part of the answer. The
last column is the most memory that a daemon had, in 10^6 bytes. Exits with 1 if the slowest answer
or the most memory is more than promised.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.promises import Promise, check, listed
from daemon.rounds.phase import Phase
from tests.interruption import unwind_when_interrupted
from tests.system.real_swarm import RealPeer, RealSwarm, peak_rss_bytes

BUSY_S = 2.0
PROMISED_MS = 500.0
PROMISED_MB = 100.0


def main() -> None:
    """Measure, and print a table."""
    unwind_when_interrupted()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.status_latency")
    parser.add_argument("--peers", type=int, default=2)
    parser.add_argument("--samples", type=int, default=30, help="how often each is measured")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="p2pd-bench-") as directory,
        RealSwarm(Path(directory)) as swarm,
    ):
        peers = start(swarm, arguments.peers)
        busy_percent = psutil.cpu_percent(BUSY_S)
        print(f"{os.cpu_count()} cores, {len(peers)} peers, cores busy {busy_percent:.0f} %")
        print(f"{'':24}{'median':>9}{'95 %':>9}{'slowest':>9}{'memory':>9}")
        slowest_ms = row(
            "training: p2pd status", lambda: ask(swarm, peers[0]), arguments.samples, peers
        )
        row("training: daemon alone", lambda: peers[0].status(), arguments.samples, peers)
        for peer in peers:
            peer.control.pause()
            peer.wait_status("rests", lambda status: status.phase == Phase.PAUSED)
        row("paused: p2pd status", lambda: ask(swarm, peers[0]), arguments.samples, peers)
        row("paused: daemon alone", lambda: peers[0].status(), arguments.samples, peers)
        memory_mb = max(peak_rss_bytes(peer.running.pid) for peer in peers) / 1e6
    promises = [
        Promise("p2pd status", slowest_ms, at_most=PROMISED_MS, unit=" ms"),
        Promise("a daemon's memory", memory_mb, at_most=PROMISED_MB, unit=" MB"),
    ]
    print(listed(promises), end="")
    check(promises)


def start(swarm: RealSwarm, count: int) -> list[RealPeer]:
    """Peers in the middle of a training that takes longer than the measurement."""
    swarm.start_rendezvous()
    swarm.create("--task", "digits", "--local-epochs", "100000", "--first-peers", str(count))
    threads = str(os.cpu_count() or 1)
    peers = [
        swarm.join(
            f"peer-{index}",
            *("--shard", f"{index}/{count}", "--listen", "127.0.0.1:0", "--threads", threads),
        )
        for index in range(count)
    ]
    for peer in peers:
        peer.wait_status("makes steps", lambda status: bool(status.samples_per_second))
    return peers


def ask(swarm: RealSwarm, peer: RealPeer) -> None:
    """``p2pd status --json``, which has to succeed."""
    done = swarm.run("status", "--json", "--state-dir", peer.state_dir)
    assert done.returncode == 0, done.stderr


def row(name: str, measured: Callable[[], object], samples: int, peers: list[RealPeer]) -> float:
    """Measure, and print a line of the table; the slowest, in milliseconds."""
    seconds = []
    for _ in range(samples):
        started = time.perf_counter()
        measured()
        seconds.append(time.perf_counter() - started)
    ordered = sorted(seconds)
    figures = (statistics.median(ordered), ordered[int(0.95 * (samples - 1))], ordered[-1])
    memory = max(peak_rss_bytes(peer.running.pid) for peer in peers) / 1e6
    shown = "".join(f"{1000 * figure:6.0f} ms" for figure in figures)
    print(f"{name:24}{shown}{memory:6.0f} MB", flush=True)
    return 1000 * ordered[-1]


if __name__ == "__main__":
    main()
