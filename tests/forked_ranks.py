"""torchrun whose ranks are forks of it: ``forked_ranks.py TORCHRUN'S WORDS…``; the script's path is
absolute.

One process loads PyTorch for all ranks of a machine, which is most of what they cost. They are
children of the launcher, each in a session of its own, as torchrun's; but torch has them end with
the launcher, which p2pd sees to where they start by themselves. In each test some do:
test_own_ranks.py and test_two_machines.py in tests/system/scripts, and test_example_scripts.py.
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
