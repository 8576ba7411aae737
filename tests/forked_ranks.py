"""torchrun whose ranks are forks of it: ``forked_ranks.py TORCHRUN'S WORDS…``; the script's path is
absolute.

One process loads PyTorch for all ranks of a machine, which is most of what they cost. To others
they are as torchrun's: children of the launcher, each in a session of its own. Others have torchrun
itself: tests/system/scripts/test_two_machines.py, and test_example_scripts.py.
"""

import os
import runpy
import sys

from p2pd.importing import collector_off

with collector_off():
    import torch._dynamo  # noqa: F401 — DDP and FSDP2 need it, each rank
    from torch.distributed.run import parse_args, run

FORKS = ("--start-method", "fork", "--run-path")


def main() -> None:
    """Start the ranks, and end when one of them ends."""
    arguments = parse_args([*FORKS, *sys.argv[1:]])  # type: ignore[no-untyped-call]  # as torch has it
    with collector_off():
        runpy.run_path(arguments.training_script, run_name="what it imports")
    os.register_at_fork(after_in_child=os.setsid)
    run(arguments)  # type: ignore[no-untyped-call]  # as torch has it


if __name__ == "__main__":
    main()
