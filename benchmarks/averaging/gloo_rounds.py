"""gloo's all-reduce of one float32 tensor, plain TCP: the limit that others are compared with.

    python gloo_rounds.py PEERS PARAMETERS ROUNDS        prints one JSON document

Imports nothing of p2pd.
"""

import json
import multiprocessing
import os
import resource
import socket
import sys
import time
from typing import Any


def take_part(rank: int, peers: int, parameters: int, rounds: int, port: int, results: Any) -> None:
    """One peer: ``rounds`` all-reduces after one to warm up; puts what they took."""
    import torch
    import torch.distributed as distributed

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    distributed.init_process_group("gloo", rank=rank, world_size=peers)
    tensor = torch.randn(parameters, generator=torch.Generator().manual_seed(rank))
    distributed.all_reduce(tensor)
    took_s, cpu_s = [], time.process_time()
    for _ in range(rounds):
        distributed.barrier()
        begun = time.monotonic()
        distributed.all_reduce(tensor)
        tensor /= peers
        took_s.append(time.monotonic() - begun)
    cpu_s = (time.process_time() - cpu_s) / rounds
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    distributed.destroy_process_group()
    results.put((took_s, cpu_s, peak_bytes))


def main() -> None:
    """Start the peers, and print what the slowest of them took in each round."""
    peers, parameters, rounds = map(int, sys.argv[1:])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=take_part, args=(rank, peers, parameters, rounds, port, results))
        for rank in range(peers)
    ]
    for process in processes:
        process.start()
    taken = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join(60)
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
