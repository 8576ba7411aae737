"""How much memory each of a peer's three processes takes.

    python -m benchmarks.memory [--peers 3] [--task digits] [--rounds 4]

Starts a swarm of real processes on loopback and looks at each peer's processes again and again
until the last round is over. A figure is the most that was seen of a process: its PSS (of pages
that several processes share, each counts its part) in 10^6 bytes. The averager's limit comes on top
of the model's own tensors (``--tensors-mb``). Exits with 1 if one takes more than promised.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.promises import Promise, check, listed
from tests.interruption import unwind_when_interrupted
from tests.system.real_swarm import RealPeer, RealSwarm, pss_bytes

DAEMON_MB = 75.0
AVERAGER_MB = 90.0
PEER_MB = 570.0
INTERVAL_S = 0.2
LONGEST_S = 600.0


@dataclass(frozen=True, slots=True)
class PeerMemory:
    """What a peer's processes take, in 10^6 bytes."""

    daemon: float
    averager: float
    whole: float
    """All of its processes: the trainer's helpers, too."""

    @classmethod
    def of(cls, peer: RealPeer) -> "PeerMemory | None":
        """What they take now; None while one of them starts."""
        status = peer.find_status()
        if status is None or status.averager_pid is None or status.worker_pid is None:
            return None
        try:
            taken = {pid: pss_bytes(pid) / 1e6 for pid in peer.running.members()}
            return cls(taken[peer.running.pid], taken[status.averager_pid], sum(taken.values()))
        except (KeyError, OSError, psutil.Error):
            return None  # One ended while it was looked at.

    def most(self, other: "PeerMemory | None") -> "PeerMemory":
        """The larger of each figure."""
        if other is None:
            return self
        return PeerMemory(
            max(self.daemon, other.daemon),
            max(self.averager, other.averager),
            max(self.whole, other.whole),
        )


def main() -> None:
    """Measure, and print a table."""
    unwind_when_interrupted()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("--peers", type=int, default=3)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tensors-mb", type=float, default=0.0, help="of the model's own tensors")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="p2pd-bench-") as directory,
        RealSwarm(Path(directory)) as swarm,
    ):
        peers = start(swarm, arguments.task, arguments.peers, arguments.rounds)
        seen = watch(peers, arguments.rounds)
    print(f"{'':12}{'daemon':>10}{'averager':>10}{'whole peer':>12}")
    for name, one in seen.items():
        print(f"{name:12}{one.daemon:7.1f} MB{one.averager:7.1f} MB{one.whole:9.1f} MB")
    worst = PeerMemory(0.0, 0.0, 0.0)
    for one in seen.values():
        worst = worst.most(one)
    promises = [
        Promise("a daemon", worst.daemon, at_most=DAEMON_MB, unit=" MB"),
        Promise(
            "an averager", worst.averager, at_most=AVERAGER_MB + arguments.tensors_mb, unit=" MB"
        ),
    ]
    if arguments.task == "digits":
        promises.append(Promise("a peer on digits", worst.whole, at_most=PEER_MB, unit=" MB"))
    print(listed(promises), end="")
    check(promises)


def start(swarm: RealSwarm, task: str, count: int, rounds: int) -> list[RealPeer]:
    """Peers that begin to train."""
    swarm.start_rendezvous()
    own = () if task == "digits" else ("--task", task)
    swarm.create("--task", task, "--min-peers", str(count), "--seed", "1", "--rounds", str(rounds))
    return [
        swarm.join(f"peer-{index}", *own, "--shard", f"{index}/{count}", "--listen", "127.0.0.1:0")
        for index in range(count)
    ]


def watch(peers: list[RealPeer], rounds: int) -> dict[str, PeerMemory]:
    """The most that was seen of each, until all have completed the last round."""
    seen: dict[str, PeerMemory] = {}
    end = time.monotonic() + LONGEST_S
    left = list(peers)
    while left and time.monotonic() < end:
        for peer in peers:
            now = PeerMemory.of(peer)
            if now is not None:
                seen[peer.name] = now.most(seen.get(peer.name))
        left = [peer for peer in left if not has_completed(peer, rounds)]
        time.sleep(INTERVAL_S)
    assert not left, f"round {rounds} did not end within {LONGEST_S:.0f} s"
    return seen


def has_completed(peer: RealPeer, rounds: int) -> bool:
    """Whether it has completed that round."""
    status = peer.find_status()
    return status is not None and status.round >= rounds


if __name__ == "__main__":
    main()
