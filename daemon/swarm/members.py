"""Who is in a swarm as far as this machine's peer knows, and how its founder puts somebody out."""

import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from daemon.host import state_paths
from daemon.swarm.admitted import AdmittedFile
from daemon.swarm.amend import Founded, change_statement, unix_ms
from daemon.swarm.invites import HOLDS, revoked, state_of
from protocol.errors import ConfigError, P2PDError, VerificationError
from protocol.identity import PeerId, peer_id_of, public_key_of
from protocol.statements.admission import Acquaintance
from protocol.statements.swarm import Swarm, SwarmStatement, open_statement


@dataclass(frozen=True, slots=True)
class Member:
    """A peer that was met, is named in the statement, or is banned."""

    peer_id: PeerId
    invites: tuple[int, ...]
    """The numbers of those by which it came; 0 for one that is not in the statement any more."""
    is_founder: bool
    is_named: bool
    """Whether the statement names it: it needs no invite."""
    is_banned: bool
    first_met_ms: int | None
    """When this machine's peer first met it; None: never."""
    last_seen_ms: int | None


def list_members(state_dir: Path) -> list[Member]:
    """All that the state directory's peer knows, in the order of their ids.

    Raises :class:`ConfigError` where there is no statement that can be read.

    >>> list_members(Path("/nowhere"))
    Traceback (most recent call last):
    ...
    protocol.errors.ConfigError: /nowhere knows no swarm yet; 'p2pd join LINK' joins one
    """
    path = state_dir / state_paths.STATEMENT_FILE
    try:
        swarm = open_statement(path.read_bytes(), swarm_id=None, now_ms=int(time.time() * 1000))
    except FileNotFoundError as error:
        raise ConfigError(f"{state_dir} knows no swarm yet; 'p2pd join LINK' joins one") from error
    except (OSError, P2PDError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    return _members(swarm, AdmittedFile(state_dir / state_paths.ADMITTED_FILE).read())


def _members(swarm: Swarm, acquaintances: list[Acquaintance]) -> list[Member]:
    statement = swarm.statement
    numbers = {token.public_key: token.number for token in statement.tokens}
    named = frozenset(map(peer_id_of, statement.members))
    banned = frozenset(map(peer_id_of, statement.banned))
    met: dict[PeerId, list[Acquaintance]] = {}
    for one in acquaintances:
        met.setdefault(one.peer, []).append(one)
    return [
        Member(
            peer_id=peer,
            invites=tuple(sorted({numbers.get(one.token, 0) for one in met.get(peer, ())})),
            is_founder=peer == swarm.founder,
            is_named=peer in named,
            is_banned=peer in banned,
            first_met_ms=min((one.first_met_ms for one in met.get(peer, ())), default=None),
            last_seen_ms=max((one.last_seen_ms for one in met.get(peer, ())), default=None),
        )
        for peer in sorted({swarm.founder, *named, *banned, *met})
    ]


@dataclass(frozen=True, slots=True)
class Banned:
    """What a ban did."""

    revoked: tuple[int, ...]
    """The numbers of the invites that it ended."""
    was_met: bool
    """Whether this machine's peer had met it, so that it is known by which invite it came."""


async def ban(founded: Founded, peer: PeerId, *, keep_invites: bool = False) -> Banned:
    """Put ``peer`` out, and end the invites by which it came: with one of those it could come back
    under another key. Where it was never met, all that hold end.

    Raises as :func:`daemon.swarm.invites.invite`.

    Example (daemon/cli/members.py)::

        peer = find_peer(founded, options.peer)
        done = asyncio.run(ban(founded, peer, keep_invites=options.keep_invites))
    """
    key = public_key_of(peer)
    if peer == founded.founder.peer_id:
        raise ConfigError("that is the founder's own id")
    acquaintances = founded.acquaintances()
    came_by = frozenset(one.token for one in acquaintances if one.peer == peer)
    now_ms = unix_ms()
    ended: list[int] = []

    def change(statement: SwarmStatement) -> SwarmStatement:
        out = msgspec.structs.replace(
            statement, banned=tuple(dict.fromkeys((*statement.banned, key)))
        )
        hold = [one for one in statement.tokens if state_of(one, 0, now_ms) == HOLDS]
        if keep_invites:
            hold = []
        elif came_by:
            hold = [one for one in hold if one.public_key in came_by]
        ended[:] = [one.number for one in hold]
        return revoked(out, [one.public_key for one in hold], acquaintances, now_ms)

    await change_statement(founded, change)
    return Banned(tuple(ended), bool(came_by))


async def lift_ban(founded: Founded, peer: PeerId) -> None:
    """Let ``peer`` in again, by an invite that holds or by who remembers it. Raises as
    :func:`ban`."""
    key = public_key_of(peer)

    def change(statement: SwarmStatement) -> SwarmStatement:
        return msgspec.structs.replace(
            statement, banned=tuple(one for one in statement.banned if one != key)
        )

    await change_statement(founded, change)


def find_peer(founded: Founded, text: str) -> PeerId:
    """The peer with this id, or the one that was let in whose id begins so.

    Raises :class:`ConfigError` when there is none, or more than one.
    """
    try:
        return peer_id_of(public_key_of(PeerId(text)))
    except VerificationError:
        pass  # No whole id: a part of one.
    found = [
        one.peer_id
        for one in _members(founded.swarm, founded.acquaintances())
        if one.peer_id.startswith(text) and not one.is_founder
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{len(found)} peers have ids that begin with {text!r}: give more of it")
    raise ConfigError(
        f"no peer that was let in here has an id that begins with {text!r}: give the whole id, as"
        " 'p2pd peers --json' shows it"
    )
