"""``create``: founds a swarm and prints its invite link."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from daemon.cli import arguments, round_arguments
from daemon.cli.purposes import PURPOSES, explain
from daemon.cli.round_arguments import MAX_COUNT, MAX_SECONDS

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.swarm.found import Created, CreateOptions
    from protocol.uri import ServerUri

MAX_INVITE_DAYS = 3650
MAX_USES = 4096
"""MAX_MET of protocol/statements/admission.py, which takes too long to load here."""

DESCRIPTION = """\
Found a swarm: sign what it trains and by which rules, leave that with the rendezvous, and print the
invite link. Send the link to those who should take part; it is all that they need.

The founder's key stays in the state directory. You need not take part yourself; if you want to, run
'p2pd join' here with the same link. You need no data to found: without, nothing is tried, and the
first who joins sees whether the task trains.

What stands after -- is a command that trains, by the Python package p2pd (docs/python-api.md). It
runs for a moment, to say what its model is.
"""

EXAMPLES = """\
  p2pd create --task digits --rendezvous p2p://KEY@host:5555
  p2pd create --task mnist --rendezvous URI --rounds 20 --min-peers 3
  p2pd create --task ./my_task.py --rendezvous URI --local-seconds 60
  p2pd create --task mnist --rendezvous URI --exchange auto --compression int8
  p2pd create --task mnist --rendezvous URI --for slow-lines
  p2pd create --task mnist --rendezvous URI --evaluate turn --evaluate-every 5
  p2pd create --task digits --rendezvous URI --invite-uses 5 --invite-days 7
  p2pd create --task digits --rendezvous URI > link.txt
  p2pd create --rendezvous URI --local-steps 50 -- python train.py
  p2pd create --task mnist --from best.safetensors --rendezvous URI
"""

OPEN_WARNING = """\
warning: this swarm is open. Anyone can join it, invent a crowd of peers and take it over.\
"""


def add_commands(commands: "Commands") -> None:
    """The group's parser."""
    parser = arguments.add_command(
        commands,
        "create",
        _create,
        summary="found a swarm; prints its invite link",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.set_defaults(lost_output="'p2pd invite' prints another link to this swarm")
    parser.add_argument(
        "--task",
        metavar="TASK",
        help="what to train: digits, mnist, or a Python file of your own (needed, unless a command"
        " stands after --)",
    )
    parser.add_argument(
        "--from",
        dest="weights",
        type=arguments.absolute_path,
        metavar="FILE",
        help="begin with the weights in a file of 'p2pd export', such as those of a swarm with"
        " other settings; the others get them from this machine, so join here too",
    )
    parser.add_argument(
        "--rendezvous",
        required=True,
        action="append",
        type=arguments.config(_uri),
        metavar="URI",
        help="where peers find each other, as 'p2pd serve' or 'p2pd rendezvous' printed it; may be"
        " repeated",
    )
    parser.add_argument(
        "--relay",
        type=arguments.config(_uri),
        action="append",
        metavar="URI",
        help="where peers meet that find no other path, as 'p2pd relay' printed it; may be repeated"
        " (the relay of a 'p2pd serve' comes with its rendezvous)",
    )
    parser.add_argument(
        "--no-relay",
        dest="take_relays",
        action="store_false",
        help="do without the relay that comes with the rendezvous",
    )
    parser.add_argument(
        "--name",
        type=arguments.display_name,
        metavar="NAME",
        help="the swarm's (default: the task's)",
    )
    arguments.add_state_dir(parser, "where the founder's key is kept (default: as for 'p2pd join')")
    arguments.add_data_dir(parser)
    parser.add_argument(
        "--seed",
        type=arguments.whole_number(0, MAX_COUNT),
        metavar="N",
        help="makes the initial weights and the shards; the same seed makes the same ones"
        " (default: a random one)",
    )

    admission = parser.add_argument_group("who may join")
    admission.add_argument(
        "--invite-uses",
        type=arguments.whole_number(0, MAX_USES),
        default=0,
        metavar="N",
        help="how many peers the link lets in (default: 0, any number)",
    )
    admission.add_argument(
        "--invite-days",
        type=arguments.whole_number(1, MAX_INVITE_DAYS),
        default=30,
        metavar="DAYS",
        help="for how long the link lets new peers in (default: 30)",
    )
    admission.add_argument(
        "--open",
        action="store_true",
        help="let anyone in who knows the swarm's id. Anyone can then invent a crowd of peers and"
        " take the swarm over: only for trying things out",
    )

    rounds = parser.add_argument_group("rounds")
    rounds.add_argument(
        "--rounds",
        type=arguments.whole_number(0, MAX_COUNT),
        metavar="N",
        help="after how many the training is complete (default: 0, never)",
    )
    round_arguments.add_local_work(rounds)
    round_arguments.add_evaluation(rounds)
    rounds.add_argument(
        "--min-peers",
        type=arguments.whole_number(1, MAX_COUNT),
        metavar="N",
        help="how many peers each round waits for; with fewer here the swarm rests, and goes on by"
        " itself (default: 2 in the first round, and then as many as there are; in gossip the first"
        " round alone)",
    )
    rounds.add_argument(
        "--first-peers",
        type=arguments.whole_number(1, MAX_COUNT),
        metavar="N",
        help="how many the first round waits for (default: as many as each)",
    )
    rounds.add_argument(
        "--grace",
        type=arguments.real_number(0.0, MAX_SECONDS),
        metavar="S",
        help="how long a round waits for the rest once most are done (default: 20)",
    )

    learning = parser.add_argument_group("learning")
    learning.add_argument(
        "--for",
        dest="purpose",
        choices=tuple(PURPOSES),
        help="pick exchange, compression, local work, outer optimizer and aggregation together: "
        + "; ".join(f"{name}: {purpose.summary}" for name, purpose in PURPOSES.items())
        + ". Prints what it picked and what was measured. Each option below still counts more",
    )
    round_arguments.add_exchange(learning)
    round_arguments.add_outer_optimizer(learning)
    arguments.add_json(parser)
    arguments.add_script(parser)
    parser.set_defaults(command=())


def _uri(text: str) -> "ServerUri":
    from protocol.uri import ServerUri

    return ServerUri.parse(text)


def _create(options: argparse.Namespace) -> int:
    import asyncio

    from daemon.host.logs import set_up_logging
    from daemon.swarm.found import create_swarm

    set_up_logging("warning", os.environ)
    created = asyncio.run(create_swarm(create_options(options), os.environ))
    if options.open:
        print(OPEN_WARNING, file=sys.stderr)
    if created.untried:
        print(
            f"founded without a trial, as the data are not here: {created.untried}", file=sys.stderr
        )
    if warning := _clock_warning(created.clock_offset_ms):
        print(warning, file=sys.stderr)
    if options.json:
        print(_document(created))
        return 0
    if options.purpose is not None:
        print(explain(options.purpose, round_arguments.chosen_settings(options)), file=sys.stderr)
    print(_explanation(options, created), file=sys.stderr)
    print(created.link)
    return 0


def create_options(options: argparse.Namespace) -> "CreateOptions":
    """What to create, from the command line. Raises :class:`ConfigError`."""
    from daemon.swarm.found import CreateOptions
    from protocol.errors import ConfigError

    script = arguments.own_script(options)
    by_script = bool(options.command) or script is not None
    if bool(options.task) == by_script:
        raise ConfigError(
            "either a task or a command of your own: leave out --task, or what is after --"
            if by_script
            else "say what to train: --task TASK, or a command of your own after --"
        )
    task = options.task or "script"
    task_file = arguments.task_file(task)
    if options.weights is not None and by_script:
        raise ConfigError("--from is for tasks: a script loads its weights before it founds")
    if options.weights is not None and not options.weights.is_file():
        raise ConfigError(f"there is no file {options.weights}")
    settings = round_arguments.chosen_settings(options)
    if options.purpose is not None:
        settings = PURPOSES[options.purpose].settings | settings
    for field, value in (
        ("rounds", options.rounds),
        ("min_peers", options.first_peers or options.min_peers),
        ("min_updates", options.min_peers),
        ("grace_s", options.grace),
    ):
        if value is not None:
            settings[field] = value
    return CreateOptions(
        task=task if task_file is None else task_file.name,
        task_file=task_file,
        name=options.name or (task if task_file is None else task_file.stem),
        rendezvous=tuple(options.rendezvous),
        relays=tuple(options.relay or ()),
        take_relays=options.take_relays,
        state_dir=options.state_dir,
        data_dir=options.data_dir,
        seed=options.seed,
        open=options.open,
        invite_uses=options.invite_uses,
        invite_days=options.invite_days,
        settings=settings,
        weights=options.weights,
        command=tuple(options.command),
        script=script,
    )


def _clock_warning(offset_ms: int) -> str:
    """Empty: the clocks agree."""
    from daemon.control.health import CLOCK_WRONG_MS, clock_difference

    if abs(offset_ms) <= CLOCK_WRONG_MS:
        return ""
    return (
        f"this machine's clock is {clock_difference(-offset_ms / 1000)} the rendezvous's: set the"
        " one that is wrong (timedatectl set-ntp true). The invite's days are counted by the later"
        " of the two"
    )


def _document(created: "Created") -> str:
    from daemon.cli.documents.kinds import Founded, document_json

    return document_json(
        Founded(
            link=created.link,
            swarm=created.name,
            swarm_id=created.swarm_id,
            founder=created.founder,
            state_dir=str(created.state_dir),
            clock_offset_ms=created.clock_offset_ms,
            evaluate=created.settings.evaluate,
            evaluate_every=created.settings.evaluate_every,
        )
    )


def _explanation(options: argparse.Namespace, created: "Created") -> str:
    from daemon.cli.output import who_evaluates

    task = f" --task {options.task}" if created.needs_task_file else ""
    if options.command:
        task = " -- COMMAND"
    own = f" --data-dir {options.data_dir}" if options.data_dir else ""
    own += f" --state-dir {created.state_dir}" if options.state_dir else ""
    mine = "to take part yourself"
    if options.weights:
        mine = "the others get the initial weights from this machine, so run here"
    settings = created.settings
    return (
        f"swarm {created.name!r} founded; its key is in {created.state_dir}\n"
        f"models are evaluated by {who_evaluates(settings.evaluate, settings.evaluate_every)}\n"
        "the invite link is below; anybody who has it can join. Others run:"
        f"  p2pd join LINK{task}\n"
        f"{mine}:  p2pd join LINK{task}{own}"
    )
