"""torchrun whose ranks are forks of it: ``forked_ranks.py SCRIPT WORD…``.

Its agent is torchrun's. One process loads PyTorch for both ranks of a peer, which is most of what
they cost. To others they are as torchrun's: children of the launcher, each in a session of its own.
torchrun itself starts those of tests/system/scripts/test_two_machines.py, and of the example.
"""

import os
import runpy
import sys
import uuid

from p2pd.importing import collector_off

with collector_off():
    import torch._dynamo  # noqa: F401 — DDP and FSDP2 need it, each rank
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

RANKS = 2


def rank(script: str) -> None:
    """Be one of them."""
    os.setsid()
    sys.argv = sys.argv[1:]
    runpy.run_path(script, run_name="__main__")


def main() -> None:
    """Start the ranks, and end as torchrun does when one of them ends."""
    script = sys.argv[1]
    with collector_off():
        runpy.run_path(script, run_name="what it imports")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=RANKS,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(config, rank)(script)


if __name__ == "__main__":
    main()
