"""``task check``: whether a task of one's own can be trained, before anybody is invited to it."""

import argparse
import subprocess
import sys
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.worker.rehearsed import Rehearsed

DESCRIPTION = """\
Try a task: load it, train its model for a few steps, evaluate it on some samples; then take two
rounds with another peer in memory, in the processes in which a peer trains. Print the model's
manifest, which is what peers exchange, and what a round costs: samples per second, time, bytes and
memory. An error names the function that is wrong. The file is run: read it first, if it is somebody
else's.
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
        summary="take two rounds, print the model and what a round costs",
        description=DESCRIPTION,
        examples="  p2pd task check my_task.py\n  p2pd task check digits --json",
    )
    parser.add_argument("task", metavar="FILE", help="the task's file, or a built-in task's name")
    arguments.add_data_dir(parser)
    arguments.add_json(parser)


def _check(options: argparse.Namespace) -> int:
    """Check the task in processes of its own: this one never loads torch."""
    import asyncio
    import os

    import msgspec

    from daemon.host.logs import set_up_logging
    from daemon.host.python_child import child_command, require_torch
    from daemon.worker.rehearsal import rehearse

    require_torch()
    data_dir = "" if options.data_dir is None else str(options.data_dir)
    command = child_command("ml.check_task", options.task, "--json")
    if data_dir:
        command += ["--data-dir", data_dir]
    # First in one process: what is wrong with a function shows there, by its name.
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        return done.returncode
    document = msgspec.json.decode(done.stdout)
    set_up_logging("warning", os.environ)
    builtin = options.task.isidentifier()
    task = options.task if builtin else os.path.abspath(options.task)
    rehearsed = asyncio.run(rehearse(task, builtin=builtin, data_dir=data_dir))
    text = document.pop("text")
    if options.json:
        document["rehearsal"] = rehearsed
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    else:
        print(f"{text}\n\n{describe(rehearsed)}")
    return 0


def describe(rehearsed: "Rehearsed") -> str:
    """What two rounds came to, for people."""
    from daemon.cli import output as text
    from protocol.text import counted

    def memory(size: int | None) -> str:
        return text.UNKNOWN if size is None else text.byte_count(size)

    where = rehearsed.device
    if rehearsed.device_problem:
        where += f" ({rehearsed.device_problem})"
    return "two rounds with another peer, in the processes of a peer:\n" + text.facts(
        [
            ("trained on", where),
            ("training", f"{counted(rehearsed.steps, 'step')} in {rehearsed.training_s:.1f} s,"
             f" {rehearsed.samples_per_second:,.0f} samples/s"),
            ("the rest", f"{rehearsed.averaging_s:.1f} s to check and average updates"),
            ("traffic", f"{text.byte_count(rehearsed.update_bytes)} a round to each other peer;"
             f" {text.byte_count(rehearsed.state_bytes)} to a newcomer"),
            ("memory", f"trainer {memory(rehearsed.trainer_bytes)},"
             f" averager {memory(rehearsed.averager_bytes)}"),
            ("then", ", ".join(text.qualities(rehearsed.metrics, rehearsed.loss))),
        ]
    )  # fmt: skip
