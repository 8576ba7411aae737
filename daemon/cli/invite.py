"""``invite``, ``ban``: what the founder of a swarm changes in it later."""

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from daemon.cli import arguments
from daemon.cli.create import MAX_INVITE_DAYS
from daemon.cli.round_arguments import MAX_COUNT

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.swarm.amend import Founded

INVITE = """\
Print another invite link for a swarm that was founded here, for when the first has expired, was
used up, or should not be passed on. Links that were given out before stay as they are. Peers that
are in stay in.
"""

BAN = """\
Put a peer out of a swarm that was founded here, whatever invite it has. Running peers hear of it
within a minute and end their connections with it.
"""


def add_commands(commands: "Commands") -> None:
    """The group's parsers."""
    parser = arguments.add_command(
        commands,
        "invite",
        _invite,
        summary="print another invite link (the founder)",
        description=INVITE,
        examples="  p2pd invite\n  p2pd invite --uses 1 --days 7 > link.txt",
    )
    parser.add_argument(
        "--uses",
        type=arguments.whole_number(0, MAX_COUNT),
        default=0,
        metavar="N",
        help="how many peers the link lets in (default: 0, any number)",
    )
    parser.add_argument(
        "--days",
        type=arguments.whole_number(1, MAX_INVITE_DAYS),
        default=30,
        metavar="DAYS",
        help="for how long the link lets new peers in (default: 30)",
    )
    _add_founder_state_dir(parser)
    arguments.add_json(parser)

    parser = arguments.add_command(
        commands,
        "ban",
        _ban,
        summary="put a peer out of the swarm (the founder)",
        description=BAN,
        examples="  p2pd ban x7ahkq2m\n  p2pd ban x7ahkq2m --lift",
    )
    parser.add_argument("peer", metavar="PEER", help="its id, or the first letters of it")
    parser.add_argument("--lift", action="store_true", help="let it in again")
    _add_founder_state_dir(parser)


def _add_founder_state_dir(parser: argparse.ArgumentParser) -> None:
    arguments.add_state_dir(parser, "where the swarm was founded (default: if there is only one)")


def _invite(options: argparse.Namespace) -> int:
    import asyncio

    from daemon.swarm.amend import invite

    founded = _founded(options)
    link = str(asyncio.run(invite(founded, uses=options.uses, days=options.days)))
    if options.json:
        print(json.dumps({"schema": 1, "link": link}))
        return 0
    print("the new invite link is below; whoever has it can join:", file=sys.stderr)
    print(link)
    return 0


def _ban(options: argparse.Namespace) -> int:
    import asyncio

    from daemon.swarm.amend import ban, find_peer

    founded = _founded(options)
    peer = find_peer(founded, options.peer)
    asyncio.run(ban(founded, peer, lift=options.lift))
    print(f"{peer} {'may take part again' if options.lift else 'is banned'}")
    return 0


def _founded(options: argparse.Namespace) -> "Founded":
    from daemon.cli.exit_codes import UsageError
    from daemon.host.logs import set_up_logging
    from daemon.host.state_paths import known_directories
    from daemon.swarm.amend import read_founded
    from protocol.errors import ConfigError

    set_up_logging("warning", os.environ)
    if options.state_dir is not None:
        return read_founded(options.state_dir)
    found = []
    for path in known_directories(os.environ):
        try:
            found.append(read_founded(path))
        except ConfigError:
            continue  # Another's, or no peer's at all.
    if not found:
        raise ConfigError("no swarm was founded here; 'p2pd create' founds one")
    if len(found) > 1:
        choices = ", ".join(str(one.state_dir) for one in found)
        raise UsageError(
            f"{len(found)} swarms were founded here; say which with --state-dir: {choices}"
        )
    return found[0]
