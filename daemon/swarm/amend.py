"""How a founder changes a running swarm: by a statement of a higher version.

The new statement is left with the rendezvous, where running peers find it
(daemon/swarm/statement_watch.py), the founder's own among them. Training, rules and swarm id stay
as they are; more rounds may follow.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from daemon.host import state_paths
from daemon.host.state_dir import read_identity
from daemon.swarm.admitted import AdmittedFile
from protocol.errors import ConfigError, P2PDError, TransportError, VerificationError
from protocol.identity import Identity
from protocol.statements.admission import Acquaintance
from protocol.statements.swarm import (
    UNLIMITED,
    Swarm,
    SwarmStatement,
    check_successor,
    open_statement,
    seal_statement,
)
from protocol.uri import ServerUri, by_server
from rendezvous import RendezvousClient
from transport.atomic_file import write_atomically
from transport.clock import Clock
from transport.curve import CurveKeys
from transport.error_group import first_error

LONGEST_S = 30.0

Change = Callable[[SwarmStatement], SwarmStatement]

_log = logging.getLogger("p2pd.founder")


@dataclass(frozen=True, slots=True)
class Founded:
    """A swarm whose founder's key is in ``state_dir``."""

    state_dir: Path
    founder: Identity
    swarm: Swarm

    def acquaintances(self) -> list[Acquaintance]:
        """Whom this machine's peer met, if it takes part."""
        return AdmittedFile(self.state_dir / state_paths.ADMITTED_FILE).read()


def read_founded(state_dir: Path) -> Founded:
    """What was founded here. Raises :class:`ConfigError` when nothing was."""
    founder = read_identity(state_dir)
    path = state_dir / state_paths.STATEMENT_FILE
    try:
        swarm = open_statement(path.read_bytes(), swarm_id=None, now_ms=unix_ms())
    except OSError as error:
        raise ConfigError(f"cannot read the swarm statement {path}: {error.strerror}") from error
    except P2PDError as error:
        raise ConfigError(
            f"the swarm statement {path} is damaged ({error}): run 'p2pd join' there once, it"
            " fetches it anew"
        ) from error
    if swarm.founder != founder.peer_id:
        raise ConfigError(
            f"the swarm of {state_dir} was founded by {swarm.founder}, with a key that is not here:"
            " only its founder can do this, where 'p2pd create' ran"
        )
    return Founded(state_dir, founder, swarm)


async def extend(founded: Founded, rounds: int) -> None:
    """The swarm is complete after ``rounds`` (0: never) and no earlier. Raises as
    :func:`change_statement`, and :class:`ConfigError` where that is no later."""

    def change(statement: SwarmStatement) -> SwarmStatement:
        before = statement.settings.rounds
        if before == UNLIMITED:
            raise ConfigError("this swarm has no last round: it trains until its peers stop")
        if UNLIMITED < rounds <= before:
            raise ConfigError(
                f"the swarm goes to round {before} already: name a later one, or 0 for no end"
            )
        settings = msgspec.structs.replace(statement.settings, rounds=rounds)
        return msgspec.structs.replace(statement, settings=settings)

    await change_statement(founded, change)


async def change_statement(founded: Founded, change: Change, clock: Clock | None = None) -> Swarm:
    """Sign the changed statement and leave it with every rendezvous that answers.

    ``clock`` knows the rendezvous's time when ``change`` is called.

    Raises :class:`ConfigError`, and :class:`TransportError` when none does.

    Example (daemon/swarm/members.py)::

        def change(statement: SwarmStatement) -> SwarmStatement:
            return msgspec.structs.replace(
                statement, banned=tuple(one for one in statement.banned if one != key)
        await change_statement(founded, change)
    """
    try:
        async with asyncio.timeout(LONGEST_S):
            return await _change_statement(founded, change, clock or Clock())
    except TimeoutError as error:
        raise TransportError(f"the rendezvous did not take it within {LONGEST_S:.0f} s") from error
    except ExceptionGroup as group:
        raise first_error(group) from group


async def _change_statement(founded: Founded, change: Change, clock: Clock) -> Swarm:
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
                clock=clock,
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
            kept = open_statement(raw, swarm_id=newest.swarm_id, now_ms=unix_ms())
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
            raise ConfigError(
                f"too many bans for one statement: {error}; lift those that are not needed any"
                " more ('p2pd ban PEER --lift')"
            ) from error
        for client in clients:
            await client.publish_statement(swarm.raw)
        try:
            write_atomically(founded.state_dir / state_paths.STATEMENT_FILE, swarm.raw)
        except OSError as error:
            # The rendezvous has it: it counts, and this machine's peer will fetch it.
            _log.warning("not stored in %s: %s", founded.state_dir, error.strerror)
        return swarm


def unix_ms() -> int:
    """This machine's clock."""
    return int(time.time() * 1000)
