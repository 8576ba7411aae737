"""What a founder changes in a running swarm: invites and bans, by a statement of a higher version.

The new statement is left with the rendezvous, where running peers find it (daemon/statement_watch),
the founder's own among them. Training, rules and swarm id stay as they are.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from daemon.host import state_paths
from daemon.host.state_dir import read_identity
from daemon.swarm.admitted import AdmissionFile
from protocol.errors import ConfigError, P2PDError, TransportError, VerificationError
from protocol.identity import Identity, PeerId, peer_id_of, public_key_of
from protocol.invite import MAX_RENDEZVOUS, Invite
from protocol.swarm import (
    Swarm,
    SwarmStatement,
    Token,
    check_successor,
    open_statement,
    seal_statement,
)
from protocol.uri import ServerUri, by_server
from rendezvous import RendezvousClient
from transport.atomic_file import write_atomically
from transport.curve import CurveKeys
from transport.error_group import first_error

MAX_TOKENS = 64
LONGEST_S = 30.0

Change = Callable[[SwarmStatement], SwarmStatement]


@dataclass(frozen=True, slots=True)
class Founded:
    """A swarm whose founder's key is in ``state_dir``."""

    state_dir: Path
    founder: Identity
    swarm: Swarm


def read_founded(state_dir: Path) -> Founded:
    """What was founded here. Raises :class:`ConfigError` when nothing was."""
    founder = read_identity(state_dir)
    path = state_dir / state_paths.STATEMENT_FILE
    try:
        swarm = open_statement(path.read_bytes(), swarm_id=None, now_ms=_now_ms())
    except (OSError, P2PDError) as error:
        raise ConfigError(f"cannot read the swarm statement {path}: {error}") from error
    if swarm.founder != founder.peer_id:
        raise ConfigError(
            f"the swarm of {state_dir} was founded by {swarm.founder}, with a key that is not here:"
            " only its founder can do this, where 'p2pd create' ran"
        )
    return Founded(state_dir, founder, swarm)


async def invite(founded: Founded, *, uses: int, days: int) -> Invite:
    """A new invite, known to the swarm's rendezvous.

    Peers that earlier invites let in become members by name, so that they stay in for newcomers who
    never saw those invites while they held. Raises :class:`ConfigError` and
    :class:`TransportError`; then there is no invite.
    """
    token = Identity.generate()
    now_ms = _now_ms()
    new = Token(public_key=token.public_key, expires_ms=now_ms + days * 24 * 3600_000, uses=uses)
    let_in = [
        public_key_of(peer)
        for peers in AdmissionFile(founded.state_dir / state_paths.ADMITTED_FILE).read().values()
        for peer in sorted(peers)
    ]

    def add(statement: SwarmStatement) -> SwarmStatement:
        if statement.open:
            raise ConfigError("this swarm is open: anyone can join with its first link")
        return msgspec.structs.replace(
            statement,
            tokens=(*statement.tokens, new)[-MAX_TOKENS:],
            members=tuple(dict.fromkeys([*statement.members, *let_in])),
        )

    swarm = await change_statement(founded, add)
    uris = tuple(map(ServerUri.parse, swarm.statement.rendezvous))[:MAX_RENDEZVOUS]
    return Invite(swarm_id=swarm.swarm_id, token_secret=token.secret, rendezvous=uris)


async def ban(founded: Founded, peer: PeerId, *, lift: bool) -> None:
    """Ban ``peer`` from the swarm, or let it in again. Raises as :func:`invite`."""
    key = public_key_of(peer)
    if peer == founded.founder.peer_id:
        raise ConfigError("that is the founder's own id")

    def change(statement: SwarmStatement) -> SwarmStatement:
        others = tuple(one for one in statement.banned if one != key)
        return msgspec.structs.replace(statement, banned=others if lift else (*others, key))

    await change_statement(founded, change)


def find_peer(founded: Founded, text: str) -> PeerId:
    """The peer with this id, or the one that was let in whose id begins so.

    Raises :class:`ConfigError` when there is none, or more than one.
    """
    try:
        return peer_id_of(public_key_of(PeerId(text)))
    except VerificationError:
        pass  # No whole id: a part of one.
    statement = founded.swarm.statement
    known = set(map(peer_id_of, (*statement.members, *statement.banned)))
    for peers in AdmissionFile(founded.state_dir / state_paths.ADMITTED_FILE).read().values():
        known |= peers
    found = sorted(peer for peer in known if peer.startswith(text))
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{len(found)} peers have ids that begin with {text!r}: give more of it")
    raise ConfigError(
        f"no peer that was let in here has an id that begins with {text!r}: give the whole id, as"
        " 'p2pd peers --json' shows it"
    )


async def change_statement(founded: Founded, change: Change) -> Swarm:
    """Sign the changed statement and leave it with every rendezvous that answers.

    Raises :class:`ConfigError`, and :class:`TransportError` when none does.
    """
    try:
        async with asyncio.timeout(LONGEST_S):
            return await _change_statement(founded, change)
    except TimeoutError as error:
        raise TransportError(f"the rendezvous did not take it within {LONGEST_S:.0f} s") from error
    except ExceptionGroup as group:
        raise first_error(group) from group


async def _change_statement(founded: Founded, change: Change) -> Swarm:
    async with AsyncExitStack() as stack:
        newest = founded.swarm
        clients: list[RendezvousClient] = []
        trouble = "the swarm names no rendezvous"
        uris = tuple(map(ServerUri.parse, founded.swarm.statement.rendezvous))
        for server in by_server(uris):
            client = RendezvousClient(
                server[0],
                # Not the peer's own keys: it may be connected with them at this moment.
                CurveKeys.generate(),
                also_at=tuple(uri.address for uri in server[1:]),
                on_notice=lambda notice: None,
            )
            await stack.enter_async_context(client)
            try:
                raw = await client.fetch_statement(newest.swarm_id)
            except ConfigError:
                raw = newest.raw  # It lost what it kept.
            except TransportError as error:
                trouble = str(error)
                continue
            clients.append(client)
            kept = open_statement(raw, swarm_id=newest.swarm_id, now_ms=_now_ms())
            if check_successor(newest, kept):
                newest = kept
        if not clients:
            raise TransportError(f"cannot reach the rendezvous: {trouble}")
        changed = change(newest.statement)
        version = newest.statement.version + 1
        try:
            swarm = seal_statement(
                founded.founder, msgspec.structs.replace(changed, version=version)
            )
        except VerificationError as error:
            raise ConfigError(f"too many invites, members and bans: {error}") from error
        for client in clients:
            await client.publish_statement(swarm.raw)
        try:
            write_atomically(founded.state_dir / state_paths.STATEMENT_FILE, swarm.raw)
        except OSError as error:
            raise ConfigError(f"cannot write to {founded.state_dir}: {error.strerror}") from error
        return swarm


def _now_ms() -> int:
    return int(time.time() * 1000)
