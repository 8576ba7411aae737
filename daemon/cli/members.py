"""``members``, ``ban``: who is in a swarm, and how its founder puts somebody out."""

import argparse
import time
from typing import TYPE_CHECKING

from daemon.cli import arguments
from daemon.cli.invite import add_founder_state_dir, find_founded, warn_if_nobody_was_met

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands
    from daemon.swarm.members import Banned, Member

MEMBERS = """\
Show who is in the swarm as far as this machine's peer knows: by which invite each came, when it was
met and seen last, and who is banned. The peer need not run.
"""

BAN = """\
Put a peer out of a swarm that was founded here, and revoke the invite by which it came, so that it
cannot use that invite again under a new key. Others who came by that invite stay. Running peers
hear of the ban within a minute and end their connections with the peer.

If this machine's peer never met the banned one, nobody here knows by which invite it came. Then all
valid invites are revoked. A person who has another link can still come in by that one.
"""


def add_commands(commands: "Commands") -> None:
    """The group's parsers."""
    parser = arguments.add_command(
        commands,
        "members",
        _members,
        summary="show who is in the swarm, and by which invite",
        description=MEMBERS,
        examples="  p2pd members\n  p2pd members --json",
    )
    arguments.add_state_dir(parser, "of which peer (default: the only one here)")
    arguments.add_json(parser)

    parser = arguments.add_command(
        commands,
        "ban",
        _ban,
        summary="put a peer out of the swarm (the founder)",
        description=BAN,
        examples="  p2pd ban x7ahkq2m\n  p2pd ban x7ahkq2m --keep-invites\n"
        "  p2pd ban x7ahkq2m --lift",
    )
    parser.add_argument("peer", metavar="PEER", help="its id, or the first letters of it")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--lift", action="store_true", help="let it in again")
    how.add_argument(
        "--keep-invites",
        action="store_true",
        help="revoke none: it can come back under a new key with the link that it has",
    )
    add_founder_state_dir(parser)


def _members(options: argparse.Namespace) -> int:
    from daemon.cli.which_peer import only_identity
    from daemon.swarm.members import list_members

    members = list_members(options.state_dir or only_identity())
    if options.json:
        print(_document(members))
    else:
        print(_table(members))
    return 0


def _document(members: "list[Member]") -> str:
    from daemon.cli.documents.kinds import Members, MemberState, document_json

    states = (
        MemberState(
            peer_id=one.peer_id,
            invites=one.invites,
            founder=one.is_founder,
            named=one.is_named,
            banned=one.is_banned,
            first_met_ms=one.first_met_ms,
            last_seen_ms=one.last_seen_ms,
        )
        for one in members
    )
    return document_json(Members(members=tuple(states)))


def _table(members: "list[Member]") -> str:
    from daemon.cli.output import UNKNOWN, ago, table
    from protocol.identity import short

    now_ms = time.time() * 1000

    def since(unix_ms: int | None) -> str:
        return ago(None if unix_ms is None else max(0.0, (now_ms - unix_ms) / 1000))

    def standing(one: "Member") -> str:
        if one.is_banned:
            return "banned"
        if one.is_founder:
            return "founder"
        return "in, by name" if one.is_named else "in, by its invite"

    return table(
        ("PEER", "INVITE", "STANDING", "FIRST MET", "LAST SEEN"),
        [
            (
                short(one.peer_id),
                ", ".join(str(number) if number else "an old one" for number in one.invites)
                or UNKNOWN,
                standing(one),
                since(one.first_met_ms),
                since(one.last_seen_ms),
            )
            for one in members
        ],
    )


def _ban(options: argparse.Namespace) -> int:
    import asyncio

    from daemon.swarm.members import ban, find_peer, lift_ban

    founded = find_founded(options)
    peer = find_peer(founded, options.peer)
    if options.lift:
        asyncio.run(lift_ban(founded, peer))
        print(f"{peer} may take part again")
        return 0
    done = asyncio.run(ban(founded, peer, keep_invites=options.keep_invites))
    print(f"{peer} is banned")
    if founded.swarm.statement.open:
        print("the swarm is open: it can come back under a new key")
    elif not options.keep_invites:
        print(_consequence(done))
        if done.revoked:
            warn_if_nobody_was_met(founded)
    return 0


def _consequence(done: "Banned") -> str:
    numbers = ", ".join(map(str, done.revoked))
    if not done.revoked:
        return "the invite by which it came had ended before"
    what = f"invite{'s' if len(done.revoked) > 1 else ''} {numbers}"
    if done.was_met:
        return f"revoked: {what}, by which it came; 'p2pd invite' prints a new link"
    return (
        f"this machine's peer never met it, so all invites that held are revoked: {what};"
        " 'p2pd invite' prints a new link"
    )
