"""A peer whose disk fills up while it trains, inside a file system that the test made for it.

    python -m tests.system.faults.full_disk DIRECTORY

Prints what ``p2pd status`` said and exited with while the disk was full, how many rounds were
trained meanwhile, and what was still wrong once there was room again.
"""

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.system.real_swarm import RealPeer, RealSwarm, wait_until

FULL_S = 90.0
ROUNDS = 4
"""So many are trained on the full disk, and so many again afterwards."""
CODES = {"checkpoints-paused", "votes-not-stored"}


def main(directory: Path) -> None:
    with RealSwarm(directory) as swarm, contextlib.ExitStack() as at_end:
        at_end.callback(swarm.print_logs)
        swarm.start_rendezvous()
        task = Path(__file__).parents[1] / "slow_task.py"
        swarm.create("--task", task, "--min-peers", "1")
        ada = swarm.join("ada", "--task", task)
        ada.wait_round(2)
        with _full(directory / "ballast"):
            wait_until("status tells", lambda: CODES & _codes(ada), FULL_S)
            status = swarm.run("status", "--json", "--state-dir", ada.state_dir)
            health = {item["code"]: item["text"] for item in json.loads(status.stdout)["health"]}
            before = ada.status().round
            full = ada.wait_round(before + ROUNDS, FULL_S).round
        ada.wait_round(full + ROUNDS, FULL_S)
        wait_until("all is stored again", lambda: not CODES & _codes(ada), FULL_S)
        report = {
            "exit_code": status.returncode,
            "rounds": full - before,
            "texts": [health[code] for code in CODES & set(health)],
        }
        at_end.pop_all()
    print(json.dumps(report))


@contextlib.contextmanager
def _full(ballast: Path) -> Iterator[None]:
    """Whatever room a file that is deleted leaves is taken at once."""
    is_over = threading.Event()

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:
            while not is_over.wait(0.001):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(1024))

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        ballast.unlink()


def _codes(peer: RealPeer) -> set[str]:
    status = peer.find_status()
    return set() if status is None else {item.code for item in status.health}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
