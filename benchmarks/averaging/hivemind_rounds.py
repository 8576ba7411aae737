"""hivemind's averaging of one float32 tensor: matchmaking and all-reduce, as its users run it.

    ENVIRONMENT/bin/python hivemind_rounds.py PEERS PARAMETERS ROUNDS      prints one JSON document

Runs in an environment with hivemind, and imports nothing of p2pd.
"""

import json
import multiprocessing
import os
import sys
import time
from typing import Any

MATCHMAKING_S = 0.5
"""The least that hivemind gathers peers for; its default is 5 s. A group that is full begins at
once."""
STEP_S = 120.0


def take_part(
    rank: int, peers: int, parameters: int, rounds: int, first: Any, gate: Any, results: Any
) -> None:
    """One peer: ``rounds`` steps after one to warm up; puts what they took."""
    import hivemind
    import psutil
    import torch

    torch.set_num_threads(1)
    here = ["/ip4/127.0.0.1/tcp/0"]
    if rank == 0:
        dht = hivemind.DHT(start=True, host_maddrs=here)
        for _ in range(peers - 1):
            first.put([str(address) for address in dht.get_visible_maddrs()])
    else:
        dht = hivemind.DHT(start=True, host_maddrs=here, initial_peers=first.get(timeout=60))
    tensor = torch.randn(parameters, generator=torch.Generator().manual_seed(rank))
    averager = hivemind.DecentralizedAverager(
        [tensor],
        dht,
        prefix="averaging",
        target_group_size=peers,
        min_group_size=peers,
        min_matchmaking_time=MATCHMAKING_S,
        request_timeout=MATCHMAKING_S / 2,
        start=True,
    )

    def all_processes() -> list[Any]:
        me = psutil.Process(os.getpid())
        return [me, *me.children(recursive=True)]

    def cpu_s() -> float:
        return float(sum(sum(process.cpu_times()[:2]) for process in all_processes()))

    def step() -> None:
        # Another try is part of what a round takes: its users' training waits for it too.
        while averager.step(timeout=STEP_S, allow_retries=True) is None:
            pass

    gate.wait(120)
    step()
    took_s, before_s = [], cpu_s()
    for _ in range(rounds):
        gate.wait(600)
        begun = time.monotonic()
        step()
        took_s.append(time.monotonic() - begun)
    used_s = (cpu_s() - before_s) / rounds
    peak_bytes = sum(process.memory_info().rss for process in all_processes())
    gate.wait(600)
    results.put((took_s, used_s, peak_bytes))
    averager.shutdown()
    dht.shutdown()


def main() -> None:
    """Start the peers, and print what the slowest of them took in each round."""
    peers, parameters, rounds = map(int, sys.argv[1:])
    context = multiprocessing.get_context("fork")  # hivemind's own processes need it
    first, results, gate = context.Queue(), context.Queue(), context.Barrier(peers)
    processes = [
        context.Process(
            target=take_part, args=(rank, peers, parameters, rounds, first, gate, results)
        )
        for rank in range(peers)
    ]
    for process in processes:
        process.start()
    taken = [results.get(timeout=900) for _ in processes]
    for process in processes:
        process.join(30)
        process.kill()
    print(
        json.dumps(
            {
                "round_s": [max(took) for took in zip(*(one[0] for one in taken), strict=True)],
                "cpu_s": max(one[1] for one in taken),
                "peak_bytes": max(one[2] for one in taken),
            }
        )
    )


if __name__ == "__main__":
    main()
