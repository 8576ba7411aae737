"""A founder's invites: giving one out, revoking one, and what became of each.

An invite that is over (expired, revoked) lets nobody new in. Those whom it let in stay: peers that
met them remember it, and the statement names those whom the founder's own peer met, so that
newcomers let them in too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from daemon.swarm.amend import Founded, change_statement, unix_ms
from protocol.errors import ConfigError
from protocol.identity import Identity, PeerId, public_key_of
from protocol.statements.admission import Acquaintance
from protocol.statements.invite import MAX_RENDEZVOUS, Invite
from protocol.statements.swarm import UNLIMITED, SwarmStatement, Token
from protocol.uri import ServerUri
from transport.clock import Clock

MAX_TOKENS = 64
"""The most tokens of a statement. One that is over gives way to a new one; one that holds never
does."""
MAX_MEMBERS = 512
"""Named in a statement: the longest acquaintances. Others stay in by what peers remember."""
HOLDS = "holds"


@dataclass(frozen=True, slots=True)
class InviteStatus:
    """One invite, as the founder's machine sees it."""

    number: int
    state: str
    """``holds``, ``expired``, ``revoked`` or ``used up``."""
    expires_ms: int
    uses: int
    """How many peers it may let in; 0: any number."""
    came: tuple[Acquaintance, ...]
    """Whom this machine's peer met by it."""


def list_invites(founded: Founded) -> list[InviteStatus]:
    """All that are in the statement, the oldest first."""
    acquaintances = founded.acquaintances()
    now_ms = unix_ms()
    found = []
    for token in founded.swarm.statement.tokens:
        came = tuple(one for one in acquaintances if one.token == token.public_key)
        found.append(
            InviteStatus(
                token.number, state_of(token, len(came), now_ms), token.expires_ms, token.uses, came
            )
        )
    return found


def state_of(token: Token, used: int, now_ms: int) -> str:
    """One of the states of :class:`InviteStatus`.

    >>> token = Token(bytes(32), expires_ms=2000, uses=3)
    >>> [state_of(token, used, now_ms) for used, now_ms in ((2, 1000), (3, 1000), (2, 2000))]
    ['holds', 'used up', 'expired']
    """
    if token.revoked_ms:
        return "revoked"
    if now_ms >= token.expires_ms:
        return "expired"
    if token.uses != UNLIMITED and used >= token.uses:
        return "used up"
    return HOLDS


async def invite(founded: Founded, *, uses: int, days: int) -> Invite:
    """A new invite, known to the swarm's rendezvous.

    Raises :class:`ConfigError` and :class:`TransportError`; then there is no invite.
    """
    token = Identity.generate()
    clock = Clock()
    acquaintances = founded.acquaintances()

    def add(statement: SwarmStatement) -> SwarmStatement:
        if statement.open:
            raise ConfigError("this swarm is open: anyone can join with its first link")
        # By the rendezvous's time too: by a clock that is behind, it might be over at once.
        now_ms = clock.expiry_ms()
        new = Token(
            public_key=token.public_key,
            expires_ms=now_ms + days * 24 * 3600_000,
            uses=uses,
            number=1 + max((one.number for one in statement.tokens), default=0),
        )
        return msgspec.structs.replace(
            statement,
            tokens=(*_with_room(statement.tokens, now_ms), new),
            members=members_after(statement, acquaintances),
        )

    swarm = await change_statement(founded, add, clock)
    uris = tuple(map(ServerUri.parse, swarm.statement.rendezvous))[:MAX_RENDEZVOUS]
    return Invite(swarm_id=swarm.swarm_id, token_secret=token.secret, rendezvous=uris)


async def revoke(founded: Founded, number: int) -> None:
    """End invite ``number``. Raises as :func:`invite`."""
    now_ms = unix_ms()
    acquaintances = founded.acquaintances()

    def change(statement: SwarmStatement) -> SwarmStatement:
        token = next((one for one in statement.tokens if one.number == number), None)
        if token is None:
            raise ConfigError(f"there is no invite {number}; 'p2pd invite --list' shows all")
        if token.revoked_ms:
            raise ConfigError(f"invite {number} was revoked before")
        return revoked(statement, {token.public_key}, acquaintances, now_ms)

    await change_statement(founded, change)


def revoked(
    statement: SwarmStatement,
    tokens: Iterable[bytes],
    acquaintances: Sequence[Acquaintance],
    now_ms: int,
) -> SwarmStatement:
    """The statement with ``tokens`` (public keys) revoked, and whom they let in named in it."""
    ended = frozenset(tokens)
    return msgspec.structs.replace(
        statement,
        tokens=tuple(
            msgspec.structs.replace(one, revoked_ms=now_ms)
            if one.public_key in ended and not one.revoked_ms
            else one
            for one in statement.tokens
        ),
        members=members_after(statement, acquaintances),
    )


def members_after(
    statement: SwarmStatement, acquaintances: Iterable[Acquaintance]
) -> tuple[bytes, ...]:
    """Members so far and those who were met, the longest acquaintances first, without the banned.

    Ids that nobody has met are not among them, however many somebody signed.
    """
    spans: dict[PeerId, int] = {}
    for one in acquaintances:
        spans[one.peer] = max(one.span_ms, spans.get(one.peer, 0))
    met = (public_key_of(peer) for peer in sorted(spans, key=lambda peer: (-spans[peer], peer)))
    named = dict.fromkeys((*statement.members, *met))
    return tuple(key for key in named if key not in statement.banned)[:MAX_MEMBERS]


def _with_room(tokens: Sequence[Token], now_ms: int) -> tuple[Token, ...]:
    """``tokens`` without one that is over, if that is needed for another one."""
    if len(tokens) < MAX_TOKENS:
        return tuple(tokens)
    over = next((one for one in tokens if one.revoked_ms or now_ms >= one.expires_ms), None)
    if over is None:
        raise ConfigError(
            f"{MAX_TOKENS} invites are out and still hold, more do not fit: revoke one that is not"
            " needed any more ('p2pd invite --list', 'p2pd invite --revoke N')"
        )
    return tuple(one for one in tokens if one is not over)
