"""``invite``, ``extend``: the founder gives out and ends invites, and lets a swarm go on."""

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

from daemon.cli import arguments
from daemon.cli.create import MAX_INVITE_DAYS, MAX_USES
from daemon.cli.round_arguments import MAX_COUNT

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.swarm.amend import Founded
    from daemon.swarm.invites import InviteStatus

_SHOWN = 5

INVITE = """\
Print another invite link for a swarm that was founded here, for when the first has expired, was
used up, or should not be passed on. Earlier links stay valid. Peers that are in stay in.

--list shows the invites by number. --revoke N ends one: nobody new comes in by it, and peers that
came by it before stay.
"""


NOBODY_MET = """\
note: no peer of this machine took part, so nobody here knows who came by that invite. Peers that
met them go on with them; peers that join from now on do not. Take part ('p2pd join') for a while
before you end an invite: then those who came by it are named to all.\
"""

EXTEND = """\
Let a swarm that was founded here go on: it is complete after ROUNDS, which is later than it was.
Peers that had finished train again. All else stays as it was agreed; it is the same swarm.
"""


def add_commands(commands: "Commands") -> None:
    """The group's parsers."""
    parser = arguments.add_command(
        commands,
        "invite",
        _invite,
        summary="print another invite link (the founder)",
        description=INVITE,
        examples="  p2pd invite\n  p2pd invite --uses 1 --days 7 > link.txt\n"
        "  p2pd invite --list\n  p2pd invite --revoke 2",
    )
    parser.set_defaults(lost_output="'p2pd invite' prints another link to this swarm")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--list", action="store_true", help="show the invites instead")
    other.add_argument(
        "--revoke",
        type=arguments.whole_number(0, MAX_COUNT),
        metavar="N",
        help="end the invite with that number instead",
    )
    parser.add_argument(
        "--uses",
        type=arguments.whole_number(0, MAX_USES),
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
    add_founder_state_dir(parser)
    arguments.add_json(parser)
    _add_extend(commands)


def _add_extend(commands: "Commands") -> None:
    parser = arguments.add_command(
        commands,
        "extend",
        _extend,
        summary="let a swarm train more rounds (the founder)",
        description=EXTEND,
        examples="  p2pd extend 40\n  p2pd extend 0                    it never ends",
    )
    parser.add_argument(
        "rounds",
        type=arguments.whole_number(0, MAX_COUNT),
        metavar="ROUNDS",
        help="after how many the swarm is complete; 0: never",
    )
    add_founder_state_dir(parser)


def add_founder_state_dir(parser: argparse.ArgumentParser) -> None:
    """``--state-dir DIR`` for what only the founder can do."""
    arguments.add_state_dir(parser, "where the swarm was founded (default: if there is only one)")


def _invite(options: argparse.Namespace) -> int:
    import asyncio

    from daemon.swarm.invites import invite, list_invites, revoke

    founded = find_founded(options)
    if options.list:
        invites = list_invites(founded)
        print(_document(invites) if options.json else _table(invites))
        return 0
    if options.revoke is not None:
        asyncio.run(revoke(founded, options.revoke))
        warn_if_nobody_was_met(founded)
        if options.json:
            from daemon.cli.documents.kinds import Revoked, document_json

            print(document_json(Revoked(revoked=options.revoke)))
        else:
            print(f"invite {options.revoke} is revoked: nobody new comes in by it")
        return 0
    link = str(asyncio.run(invite(founded, uses=options.uses, days=options.days)))
    if options.json:
        from daemon.cli.documents.kinds import NewInvite, document_json

        print(document_json(NewInvite(link=link)))
        return 0
    print("the new invite link is below; anybody who has it can join:", file=sys.stderr)
    print(link)
    return 0


def _extend(options: argparse.Namespace) -> int:
    import asyncio

    from daemon.swarm.amend import extend

    asyncio.run(extend(find_founded(options), options.rounds))
    end = f"goes to round {options.rounds}" if options.rounds else "has no last round"
    print(f"the swarm {end} now; peers that run hear of it within a minute")
    return 0


def _document(invites: "list[InviteStatus]") -> str:
    from daemon.cli.documents.kinds import Invites, InviteState, document_json

    states = (
        InviteState(
            number=one.number,
            state=one.state,
            expires_ms=one.expires_ms,
            uses=one.uses,
            came=tuple(each.peer for each in one.came),
        )
        for one in invites
    )
    return document_json(Invites(invites=tuple(states)))


def _table(invites: "list[InviteStatus]") -> str:
    from daemon.cli.output import UNKNOWN, duration, table

    now_ms = time.time() * 1000
    return table(
        ("NO.", "STATE", "ENDS IN", "LETS IN", "CAME (MET HERE)"),
        [
            (
                str(one.number),
                one.state,
                duration((one.expires_ms - now_ms) / 1000) if one.state == "holds" else UNKNOWN,
                str(one.uses) if one.uses else "any number",
                " ".join(each.peer[:8] for each in one.came[:_SHOWN])
                + (f" and {len(one.came) - _SHOWN} more" if len(one.came) > _SHOWN else ""),
            )
            for one in invites
        ],
    )


def warn_if_nobody_was_met(founded: "Founded") -> None:
    """Warn after an invite has ended: the statement cannot name peers that this machine never
    met."""
    founder = founded.founder.peer_id
    if all(one.peer == founder for one in founded.acquaintances()):
        print(NOBODY_MET, file=sys.stderr)


def find_founded(options: argparse.Namespace) -> "Founded":
    """The swarm that was founded here. Raises :class:`ConfigError`, :class:`UsageError`."""
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
