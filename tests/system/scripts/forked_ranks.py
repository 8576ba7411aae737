"""torchrun whose ranks are forks of it: ``forked_ranks.py ddp|fsdp2 DIRECTORY``.

Its agent is torchrun's. One process loads PyTorch for all of a peer's ranks, which is most of what
they cost. To others they are as torchrun's: children of the launcher, each in a session of its own.
test_two_machines.py has torchrun itself, as people start it.
"""

import os
import uuid

from p2pd.importing import collector_off

with collector_off():
    import torch._dynamo  # noqa: F401 — DDP and FSDP2 need it, each rank
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from tests.system.scripts import own_ranks

RANKS = 2


def rank() -> None:
    """Be one of them."""
    os.setsid()
    own_ranks.main()


def main() -> None:
    """Start the ranks, and end as torchrun does when one of them ends."""
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
    elastic_launch(config, rank)()


if __name__ == "__main__":
    main()
