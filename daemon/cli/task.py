"""``task check``: whether a task of one's own can be trained, before anybody is invited to it."""

import argparse
import subprocess
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands

DESCRIPTION = """\
Try a task: load it, train its model for a few steps, evaluate it on some samples, and print the
model's manifest, the tensors that peers will exchange, and what a round costs: the size of the
data, the speed here, the time and the bytes of a round. An error names the function
that is wrong. The file is run: read it first, if it is somebody else's.
"""


def add_commands(commands: "Commands") -> None:
    """The group's parsers."""
    group = arguments.add_command(
        commands,
        "task",
        None,
        summary="try a task of your own",
        description="What can be done with a task file, or with a built-in task.",
        examples="  p2pd task check my_task.py",
    )
    actions = group.add_subparsers(title="actions", metavar="ACTION", required=True)
    parser = arguments.add_command(
        actions,
        "check",
        _check,
        summary="train a few steps, print the model and what a round costs",
        description=DESCRIPTION,
        examples="  p2pd task check my_task.py\n  p2pd task check digits --json",
    )
    parser.add_argument("task", metavar="FILE", help="the task's file, or a built-in task's name")
    arguments.add_data_dir(parser)
    arguments.add_json(parser)


def _check(options: argparse.Namespace) -> int:
    """Check the task in a process of its own: this one never loads torch."""
    from daemon.host.python_child import child_command, require_torch

    require_torch()
    command = child_command("ml.check_task", options.task)
    if options.data_dir is not None:
        command += ["--data-dir", str(options.data_dir)]
    if options.json:
        command.append("--json")
    return subprocess.run(command, check=False).returncode
