"""How long it takes from ``p2pd join`` to a daemon that answers, a trainer, and a first round.

    python -m benchmarks.start [--samples 5] [--peers 2] [--json FILE]

Starts a swarm of real processes on loopback that trains digits in rounds of two seconds, with
``--nice 19``: these would be on machines of their own, and leave this one to who comes (where the
kernel shares the processor among sessions first, the whole session is told so). Then newcomers join
it, one after the other, each with a state directory of its own. Of each it notes the seconds from
the command to

- ``daemon``: ``p2pd status`` is answered,
- ``trainer``: the task is loaded, and the peer ready to train,
- ``round``: the first round is over that its own update is in.

Beside these stand the seconds of processor time that daemon and trainer took up to the first two:
on a machine that does something else too, they say more. ``rounds`` counts those that the swarm
completed from the moment when the trainer was ready up to the one with the newcomer's update, that
one included. Medians are printed; the JSON document has every sample.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

from daemon.control.history import History
from tests.interruption import unwind_when_interrupted
from tests.system.real_swarm import RealPeer, RealSwarm

LOOK_S = 0.05
WAIT_S = 300.0
THREADS = ("--threads", "1", "--listen", "127.0.0.1:0")
MEASURES = ("daemon_s", "trainer_s", "round_s", "daemon_cpu_s", "trainer_cpu_s", "rounds")

T = TypeVar("T")


def main() -> None:
    """Measure, and print medians."""
    unwind_when_interrupted()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start")
    parser.add_argument("--samples", type=int, default=5, help="how many newcomers")
    parser.add_argument("--peers", type=int, default=2, help="how many train before")
    parser.add_argument("--json", type=Path, help="where to write all samples")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="p2pd-bench-") as directory,
        RealSwarm(Path(directory)) as swarm,
    ):
        peers = start(swarm, arguments.peers)
        load = os.getloadavg()[0]
        samples = [newcomer(swarm, peers[0], index) for index in range(arguments.samples)]
    medians = {name: statistics.median(one[name] for one in samples) for name in MEASURES}
    document = {
        "schema": 1,
        "cores": os.cpu_count(),
        "load": load,
        "peers": arguments.peers,
        "samples": samples,
        "medians": medians,
    }
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    print(
        f"{os.cpu_count()} cores, load {load:.1f}, {len(samples)} newcomers to {len(peers)} peers"
    )
    for name, median in medians.items():
        values = sorted(one[name] for one in samples)
        print(f"{name:14}{median:8.2f}   {values[0]:.2f} to {values[-1]:.2f}")


def start(swarm: RealSwarm, count: int) -> list[RealPeer]:
    """Peers that are in the midst of their training."""
    swarm.start_rendezvous()
    swarm.create("--task", "digits", "--local-seconds", "2", "--first-peers", str(count))
    peers = [swarm.join(f"peer-{index}", *THREADS, "--nice", "19") for index in range(count)]
    for peer in peers:
        session = Path(f"/proc/{peer.running.pid}/autogroup")
        if session.exists():
            session.write_text("19")
        peer.wait_round(1, WAIT_S)
    return peers


def newcomer(swarm: RealSwarm, other: RealPeer, index: int) -> dict[str, float]:
    """What one newcomer takes."""
    began = time.monotonic()
    peer = swarm.join(f"newcomer-{index}", *THREADS)
    first = until(peer.find_status)
    daemon_s, daemon_cpu_s = time.monotonic() - began, cpu_s(first.pid)
    ready = until(
        lambda: status if (status := peer.status()).phase not in ("starting", "stopping") else None
    )
    trainer_s = time.monotonic() - began
    trainer_cpu_s = cpu_s(ready.worker_pid or ready.pid)
    round_then = other.status().round
    number = until(lambda: first_own(peer.control.history(), ready.peer_id))
    round_s = time.monotonic() - began
    peer.running.close()
    return {
        "daemon_s": daemon_s,
        "trainer_s": trainer_s,
        "round_s": round_s,
        "daemon_cpu_s": daemon_cpu_s,
        "trainer_cpu_s": trainer_cpu_s,
        "rounds": number - round_then,
    }


def first_own(history: History, peer_id: str) -> int | None:
    """The first round that is over and has the update of ``peer_id``; None: there is none yet."""
    return next((one.round for one in history.rounds if peer_id in one.losses), None)


def until(probe: Callable[[], T | None]) -> T:
    """What ``probe`` finds in the end."""
    deadline = time.monotonic() + WAIT_S
    while (found := probe()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing was found within {WAIT_S:.0f} s")
        time.sleep(LOOK_S)
    return found


def cpu_s(pid: int) -> float:
    """The processor time that a process took until now."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
