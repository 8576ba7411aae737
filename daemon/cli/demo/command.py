"""``demo``: a whole swarm on this machine, for a look."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.cli import arguments, round_arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands

MAX_PEERS = 64
MAX_ROUNDS = 100_000

DESCRIPTION = """\
Run a rendezvous and some peers as real processes on this machine, on loopback addresses. Each peer
has its own part of the data; together they train one model. At the end what the task measures,
such as the accuracy, stands next to what each peer reaches alone, on its own part, in the same
number of rounds.

Nothing is left behind: everything lies in a temporary directory unless --keep names one.
"""


def add_commands(commands: "Commands") -> None:
    """The group's parser."""
    parser = arguments.add_command(
        commands,
        "demo",
        _demo,
        summary="see a swarm train on this machine",
        description=DESCRIPTION,
        examples="  p2pd demo\n"
        "  p2pd demo --rounds 40 --web\n"
        "  p2pd demo --task mnist --data-dir ~/data\n"
        "  p2pd demo --task my_task.py\n"
        "  p2pd demo --peers 5 --rounds 10 --json\n"
        "  p2pd demo --peers 4 --exchange allreduce --compression int8\n"
        "  p2pd demo --peers 4 --rounds 6 --local-epochs 2 --compression topk\n"
        "  p2pd demo --peers 6 --exchange gossip --topology ring\n"
        "  p2pd demo --partition labels:4",
    )
    parser.add_argument(
        "--peers",
        type=arguments.whole_number(1, MAX_PEERS),
        default=3,
        metavar="N",
        help="how many (default: 3)",
    )
    parser.add_argument(
        "--rounds",
        type=arguments.whole_number(1, MAX_ROUNDS),
        default=5,
        metavar="N",
        help="how many (default: 5)",
    )
    parser.add_argument(
        "--task",
        default="digits",
        metavar="TASK",
        help="digits (default; nothing to download), mnist, or a Python file of your own",
    )
    arguments.add_data_dir(parser)
    parser.add_argument(
        "--keep",
        type=arguments.absolute_path,
        metavar="DIR",
        help="put logs, checkpoints and each peer's exported model here and leave them",
    )
    parser.add_argument(
        "--web",
        action="store_true",
        help="print the address of a page that shows the swarm while it trains",
    )
    learning = parser.add_argument_group("how they learn together")
    round_arguments.add_local_work(learning)
    round_arguments.add_exchange(learning)
    round_arguments.add_outer_optimizer(learning)
    arguments.add_json(parser)


def _demo(options: argparse.Namespace) -> int:
    from daemon.cli.demo.demo import DemoOptions, run_demo

    keep: Path | None = options.keep
    task_file = arguments.task_file(options.task)
    return run_demo(
        DemoOptions(
            peers=options.peers,
            rounds=options.rounds,
            task=options.task if task_file is None else task_file.name,
            task_file=task_file,
            data_dir=options.data_dir,
            keep=keep,
            json=options.json,
            web=options.web,
            settings=round_arguments.chosen_settings(options),
        )
    )
