"""p2pd's rounds with next to no training: real processes on loopback, started as a user would."""

import re
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.averaging.measured import Case, Measured
from tests.system.real_swarm import RealPeer, RealSwarm, wait_until

TASK = Path(__file__).with_name("wide_task.py")
WITHIN_S = 1200.0
_AVERAGED = re.compile(
    r"^(\d+):(\d+):([\d.]+) .* round (\d+): (?:\d+ updates? averaged|averaged with)", re.MULTILINE
)


def measure(case: Case, rounds: int, *settings: str) -> Measured:
    """``rounds`` rounds after two to warm up. ``settings``: of ``p2pd create``."""
    with (
        tempfile.TemporaryDirectory(prefix="p2pd-averaging-") as directory,
        RealSwarm(Path(directory), {"P2PD_BENCH_PARAMETERS": str(case.parameters)}) as swarm,
    ):
        swarm.start_rendezvous()
        swarm.create("--task", TASK, "--first-peers", str(case.peers), *settings)
        peers = [
            swarm.join(f"peer-{n}", "--task", TASK, "--shard", f"{n}/{case.peers}")
            for n in range(case.peers)
        ]
        one = peers[0]
        wait_until("two rounds to warm up", lambda: last_round(one) >= 2, WITHIN_S)
        first, before_s, peak_bytes = last_round(one), cpu_s(one), 0
        while (last := last_round(one)) < first + rounds:
            peak_bytes = max(peak_bytes, resident_bytes(one))
            time.sleep(0.2)
        used_s = (cpu_s(one) - before_s) / (last - first)
        ends = ends_of_rounds(one)
    took_s = [ends[n] - ends[n - 1] for n in range(first + 1, first + rounds + 1)]
    return Measured(took_s, used_s, peak_bytes)


def ends_of_rounds(peer: RealPeer) -> dict[int, float]:
    """When each round ended, in seconds, by the peer's log."""
    ends: dict[int, float] = {}
    for hours, minutes, seconds, number in _AVERAGED.findall(peer.logged()):
        at_s = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        # The log tells the time of day; midnight comes once at most.
        ends[int(number)] = at_s if not ends or at_s >= max(ends.values()) else at_s + 86400
    return ends


def last_round(peer: RealPeer) -> int:
    """The last round that it averaged; 0 before the first. Fails when the peer has ended."""
    assert peer.running
    return max(ends_of_rounds(peer), default=0) if peer.log.exists() else 0


def cpu_s(peer: RealPeer) -> float:
    """What its processes have used."""
    return sum(sum(process.cpu_times()[:2]) for process in processes(peer))


def resident_bytes(peer: RealPeer) -> int:
    """What its processes hold."""
    return sum(process.memory_info().rss for process in processes(peer))


def processes(peer: RealPeer) -> list[psutil.Process]:
    """The daemon and what it started."""
    daemon = psutil.Process(peer.running.pid)
    return [daemon, *daemon.children(recursive=True)]
