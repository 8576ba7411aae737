"""``join``: runs a peer in the foreground until it is told to stop."""

import argparse
import os
import re
import sys
from typing import TYPE_CHECKING

from daemon.cli import arguments
from daemon.cli.settings.names import make_configurable

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands

MAX_TURN_FILE_BYTES = 16 * 1024
MAX_ROUNDS = 1_000_000_000
MAX_THREADS = 4096
MAX_NICENESS = 19
MAX_QUOTA_BYTES = 10**15
KEPT_CHECKPOINTS = 2
"""The constant of that name in ml/state/blob.py, which takes too long to load here."""
MAX_KEPT_CHECKPOINTS = 1_000_000

DESCRIPTION = """\
Join a swarm and train with it until told to stop ('p2pd stop', Ctrl-C or SIGTERM).

Anybody who has the link can join, and other users of this machine can see the command line. Where
that matters, give the link in a file, or as - on standard input.

The options are kept in the state directory (not --rounds and --log-level). Without LINK, a peer
that has joined before goes on as before, under the same id. A file and the environment can set the
same options; they are read at each start, and override what is kept: 'p2pd config --help'.

A command after -- trains in the place of p2pd's own trainer, by the Python package p2pd
(docs/python-api.md). It is started again when it dies; when it ends well, so does the peer.
"""

EXAMPLES = """\
  p2pd join p2pd:…                            all of the data
  p2pd join p2pd:… --shard 0/4                the first quarter of it
  p2pd join link.txt --task my_task.py        your copy of the task's file
  p2pd join - < link.txt                      the link from standard input
  p2pd join                                   go on where this peer left off
  p2pd join link.txt --state-dir ~/peer-2     a second peer on this machine
  p2pd join link.txt --tensorboard runs/ada   then: tensorboard --logdir runs
  p2pd join --config home                     as ~/.config/p2pd/home.toml says
  p2pd join link.txt --observe                connect, but do not train
  p2pd join link.txt -- python train.py       your own training script
  p2pd join link.txt -- torchrun --nproc-per-node 2 train.py
  p2pd join link.txt --listen 0.0.0.0:6000 --advertise 203.0.113.5:6000
"""


def add_commands(commands: "Commands") -> None:
    """The group's parser."""
    parser = arguments.add_command(
        commands,
        "join",
        _join,
        summary="join a swarm and train with it",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument(
        "link",
        nargs="?",
        metavar="LINK",
        help="the invite link, a file that holds it, or - for standard input",
    )
    parser.add_argument(
        "--task",
        type=arguments.absolute_path,
        metavar="FILE",
        help="your copy of the task's file, if the swarm's task is not a built-in one",
    )
    parser.add_argument(
        "--shard",
        type=arguments.config(_shard),
        metavar="I/N",
        help="train on part I (from 0) of the data cut into N (default: 0/1, all of it)",
    )
    parser.add_argument(
        "--listen",
        type=arguments.config(_listen),
        metavar="HOST:PORT",
        help="where other peers can connect; port 0 picks one (default: [::]:0, all addresses)",
    )
    parser.add_argument(
        "--advertise",
        type=arguments.config(_address),
        action="append",
        metavar="HOST:PORT",
        help="the address to tell others instead of this machine's own; may be repeated",
    )
    parser.add_argument(
        "--stun",
        type=arguments.config(_address),
        action="append",
        metavar="HOST:PORT",
        help="another STUN server, besides those of the rendezvous; may be repeated",
    )
    parser.add_argument(
        "--turn",
        type=arguments.config(_turn),
        metavar="USER:PASSWORD@HOST:PORT",
        help="a TURN server that you may use, for UDP to peers that are not reached otherwise; or a"
        " file that holds this (default: none; the swarm's relays need none)",
    )
    parser.add_argument(
        "--no-turn", dest="turn", action="store_const", const="", help="stop using the TURN server"
    )
    parser.add_argument(
        "--port-mapping",
        dest="map_port",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="ask the router (PCP, NAT-PMP, UPnP) to let other peers connect (default: ask)",
    )
    parser.add_argument(
        "--observe",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="take part in the swarm's connections without training: to watch, to measure, to check"
        " a network; needs no torch",
    )
    arguments.add_data_dir(parser)
    arguments.add_state_dir(
        parser,
        "where this peer keeps its key, its checkpoints and its control socket"
        " (default: ~/.local/state/p2pd/ and a name made from the swarm's id)",
    )
    parser.add_argument(
        "--rounds",
        type=arguments.whole_number(1, MAX_ROUNDS),
        default=0,
        metavar="N",
        help="leave when round N is complete (default: stay until told to stop)",
    )
    parser.add_argument(
        "--name",
        type=arguments.display_name,
        metavar="NAME",
        help="what others see next to your id",
    )
    parser.add_argument(
        "--threads",
        type=arguments.whole_number(0, MAX_THREADS),
        metavar="N",
        help="CPU threads for training (default: 0, all)",
    )
    parser.add_argument(
        "--device",
        type=_device,
        metavar="DEVICE",
        help="where to train: auto (default; the best that works), cpu, cuda, cuda:1, mps or xpu."
        " Where one cannot be used, 'p2pd status' says so, and the CPU trains. A command after --"
        " chooses by itself",
    )
    parser.add_argument(
        "--keep-checkpoints",
        dest="kept_checkpoints",
        type=arguments.whole_number(KEPT_CHECKPOINTS, MAX_KEPT_CHECKPOINTS),
        metavar="N",
        help="keep the states of the last N rounds on disk, for 'p2pd export --round' or to look at"
        f" (default: {KEPT_CHECKPOINTS}, what a restart needs; each is as large as the model)",
    )
    parser.add_argument(
        "--tensorboard",
        dest="event_dir",
        type=arguments.absolute_path,
        metavar="DIR",
        help="write loss, metrics, speed and traffic of each round into event files there, for"
        " TensorBoard; a directory for each peer (needs the Python package tensorboard)",
    )
    parser.add_argument(
        "--no-tensorboard",
        dest="event_dir",
        action="store_const",
        const="",
        help="stop writing event files",
    )
    parser.add_argument(
        "--web",
        type=arguments.config(_page_address),
        metavar="HOST:PORT",
        help="serve the page that shows the swarm there, on this machine alone, and /metrics for"
        " Prometheus; 'p2pd web' prints its address (default: only after 'p2pd web')",
    )
    parser.add_argument(
        "--no-web",
        dest="web",
        action="store_const",
        const="",
        help="stop serving it",
    )
    parser.add_argument(
        "--on-round",
        metavar="COMMAND",
        help="run this shell command after each round, with one line of JSON about it on standard"
        " input (loss, metrics, each peer's loss); it holds no round up, and has a minute",
    )
    parser.add_argument(
        "--no-on-round",
        dest="on_round",
        action="store_const",
        const="",
        help="stop running it",
    )
    _add_limits(parser)
    parser.add_argument(
        "--command",
        action="append",
        metavar="WORD",
        help="one word of the command that trains, instead of all of them after --; repeated",
    )
    arguments.add_log_level(parser)
    arguments.add_script(parser)
    make_configurable(parser, "join")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group(
        "limits", "'p2pd set' changes the first four while the peer runs; 'p2pd status' shows them."
    )
    for way, what in (("upload", "sent to"), ("download", "received from")):
        limits.add_argument(
            f"--{way}-rate",
            type=arguments.config(_rate),
            metavar="MB/S",
            help=f"most of the model that is {what} other peers in a second (default: off, no"
            " limit)",
        )
    limits.add_argument(
        "--hours",
        type=arguments.config(_hours),
        metavar="HH:MM-HH:MM",
        help="train in these hours of the day alone, by this machine's time; several with commas"
        ' between them, "" for always (default)',
    )
    limits.add_argument(
        "--pause-on-battery",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="do not train while this machine runs on its battery (default: train)",
    )
    limits.add_argument(
        "--pause-on-metered",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="do not train while NetworkManager says that this machine's line costs by the byte"
        " (default: train)",
    )
    limits.add_argument(
        "--nice",
        dest="niceness",
        type=arguments.whole_number(0, MAX_NICENESS),
        metavar="N",
        help="let other programs of this machine go first, 19 the most (default: 0)",
    )
    limits.add_argument(
        "--disk-quota",
        type=arguments.byte_size(0, MAX_QUOTA_BYTES),
        metavar="SIZE",
        help="keep fewer checkpoints than --keep-checkpoints says where they would take more than"
        " this, such as 20G (default: 0, no limit)",
    )


def _rate(text: str) -> str:
    from daemon.host.limits.limits import read_rate

    read_rate(text)
    return text


def _hours(text: str) -> str:
    from daemon.host.limits.hours import Hours

    return str(Hours.parse(text))


def _shard(text: str) -> str:
    from daemon.swarm.join_options import Shard

    return str(Shard.parse(text))


def _listen(text: str) -> str:
    from protocol.uri import HostPort

    return str(HostPort.parse(text, any_port=True))


def _address(text: str) -> str:
    from protocol.uri import HostPort

    return str(HostPort.parse(text))


def _page_address(text: str) -> str:
    from daemon.web.loopback import check_loopback
    from protocol.uri import HostPort

    return str(check_loopback(HostPort.parse(text, any_port=True)))


def _turn(text: str) -> str:
    from daemon.net.paths.ice.turn_server import TurnServer
    from protocol.errors import ConfigError

    if "@" not in text:
        try:
            with open(text, encoding="utf-8") as file:
                text = file.read(MAX_TURN_FILE_BYTES).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{text!r} is neither USER:PASSWORD@HOST:PORT nor a file that can be read"
            ) from error
    return str(TurnServer.parse(text))


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:[0-9]{1,3})?", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no device: write auto, cpu, cuda, cuda:1, mps, xpu or xpu:1"
        )
    return text


def _join(options: argparse.Namespace) -> int:
    from daemon.cli.settings.peer import PeerSettings

    settings = PeerSettings(options, os.environ)

    # Only now: what is wrong with the options is said at once.
    from daemon.host.certificates import certificates_unread
    from daemon.worker.program import begun_trainer
    from p2pd.importing import collector_off

    chosen = settings.options
    # One that is to be nicer is told so by the daemon, before it has threads.
    begins = not (chosen.observe or chosen.by_script or chosen.niceness)
    trainer = begun_trainer() if begins else chosen.trainer

    with collector_off(), certificates_unread():
        from daemon.cli.watch.join_view import JoinView
        from daemon.peer_process import run_peer

    view = JoinView(live=sys.stdout is not None and sys.stdout.isatty())
    return run_peer(chosen, view, settings.again, trainer)
