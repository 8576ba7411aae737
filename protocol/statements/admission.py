"""Who may take part: the chain founder → token → peer, which every peer checks by itself.

Invariants: the founder's signature over the swarm statement vouches for the tokens in it; a token's
secret half signs exactly one peer id per use; bans win over everything. Neither the rendezvous nor
a relay is trusted with any of this.

A use is counted, and a peer remembered, only when that peer itself has shown its proof on a
connection of its own (:meth:`AdmissionBook.meet`): the holder of a token can sign any number of
peer ids, and ids alone use nothing up and fill nothing. A peer that was met while the invite held
stays in when the invite is over, unless the founder bans it. A peer that was met only after the
invite was revoked does not.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from protocol.codec import Message, decode, encode
from protocol.envelope import Domain, open_envelope, seal_envelope
from protocol.errors import RemoteProtocolError, VerificationError
from protocol.identity import Identity, PeerId, peer_id_of, public_key_of
from protocol.statements.swarm import UNLIMITED, Swarm, Token, is_banned

MAX_PROOF_BYTES = 1024
MAX_MET = 4096
"""Peers that are remembered. Past these the shortest acquaintance gives way: a crowd that is
invented in an hour displaces nobody who was here longer."""
SEEN_STEP_MS = 600_000
"""How exactly it is remembered when a peer was seen last."""
NO_PROOF = b""


class DeniedError(VerificationError):
    """The peer is not admitted to the swarm."""


class TokenUse(Message):
    """The payload that a token's secret half signs."""

    peer: bytes
    """Public key of the peer that is let in."""


def prove_admission(token_secret: bytes, swarm_id: bytes, peer_id: PeerId) -> bytes:
    """The proof that the holder of a token lets ``peer_id`` in: an envelope signed by the token."""
    return seal_envelope(
        Identity(token_secret),
        Domain.TOKEN_USE,
        encode(TokenUse(peer=public_key_of(peer_id))),
        swarm=swarm_id,
        sequence=0,
    )


@dataclass(frozen=True, slots=True)
class Acquaintance:
    """A peer that was met, by the token that it showed. Unix milliseconds."""

    token: bytes
    """The token's public key."""
    peer: PeerId
    first_met_ms: int
    last_seen_ms: int

    @property
    def span_ms(self) -> int:
        """The time from the first meeting to the last."""
        return self.last_seen_ms - self.first_met_ms


class Memory(Protocol):
    """Keeps acquaintances beyond this process."""

    def add(self, one: Acquaintance) -> None:
        """Keep a new one, or a known one with a later ``last_seen_ms``. Never raises."""

    def forget(self, one: Acquaintance) -> None:
        """It does not count any more. Never raises."""


class NoMemory:
    """Keeps nothing."""

    def add(self, one: Acquaintance) -> None:
        """See :class:`Memory`."""

    def forget(self, one: Acquaintance) -> None:
        """See :class:`Memory`."""


class AdmissionBook:
    """Decides who is in. Remembers who came by which token, to hold each token to its uses.

    >>> from protocol.statements.swarm import RoundSettings, SwarmStatement, TaskReference
    >>> from protocol.statements.swarm import seal_statement
    >>> founder, invite, alice, eve = (Identity(bytes([number] * 32)) for number in range(4))
    >>> tokens = (Token(invite.public_key, expires_ms=60_000, uses=1),)
    >>> task = TaskReference("digits", True, b"", bytes(32), 0, bytes(32))
    >>> swarm = seal_statement(founder, SwarmStatement(
    ...     "demo", b"", 1, task, RoundSettings(), (), False, tokens, (), ()))
    >>> book = AdmissionBook(swarm)
    >>> proof = prove_admission(invite.secret, swarm.swarm_id, alice.peer_id)
    >>> book.meet(alice.peer_id, proof, now_ms=0)
    >>> book.is_in(alice.peer_id)
    True
    >>> book.check(eve.peer_id, proof, now_ms=0)
    Traceback (most recent call last):
    protocol.statements.admission.DeniedError: denied: ... shows an invite made out to another peer
    """

    def __init__(
        self, swarm: Swarm, *, met: Iterable[Acquaintance] = (), memory: Memory | None = None
    ) -> None:
        """``met``: who is remembered from before; ``memory`` is told of each change."""
        self._swarm = swarm
        self._memory = memory or NoMemory()
        self._met: dict[PeerId, dict[bytes, Acquaintance]] = {}
        self._uses: dict[bytes, int] = {}
        for one in met:
            self._remember(one)
        self._forget_late_comers()

    def replace_statement(self, swarm: Swarm) -> None:
        """Decide by a newer statement from now on."""
        self._swarm = swarm
        self._forget_late_comers()

    @property
    def swarm(self) -> Swarm:
        """The statement that it goes by."""
        return self._swarm

    def acquaintances(self) -> list[Acquaintance]:
        """All who are remembered; one that showed several tokens is there once for each."""
        return [one for by_token in self._met.values() for one in by_token.values()]

    def is_in(self, peer_id: PeerId) -> bool:
        """Whether ``peer_id`` needs to show nothing (any more)."""
        if is_banned(self._swarm, peer_id):
            return False
        statement = self._swarm.statement
        return (
            statement.open
            or peer_id == self._swarm.founder
            or peer_id in self._met
            or public_key_of(peer_id) in statement.members
        )

    def check(self, peer_id: PeerId, proof: bytes, *, now_ms: int) -> None:
        """Return if ``peer_id`` may take part. Raises :class:`DeniedError` with the reason.

        Nothing is counted or remembered, so it costs nothing to ask for invented peers.
        """
        if is_banned(self._swarm, peer_id):
            raise DeniedError(f"denied: {peer_id} was banned by the swarm's founder")
        if self.is_in(peer_id):
            return
        if proof == NO_PROOF:
            raise DeniedError(f"denied: {peer_id} shows no invite and the swarm is by invitation")
        token = self._token_behind(peer_id, proof, now_ms)
        if token.revoked_ms:
            raise DeniedError(
                f"denied: the invite of {peer_id} was revoked by the swarm's founder; ask for a"
                " new one"
            )
        if now_ms >= token.expires_ms:
            raise DeniedError(f"denied: the invite of {peer_id} has expired; ask for a new one")
        used = self._uses.get(token.public_key, 0)
        if token.uses != UNLIMITED and used >= token.uses:
            raise DeniedError(
                f"denied: the invite of {peer_id} was used {used} times already,"
                f" {token.uses} allowed; ask for a new one"
            )

    def meet(self, peer_id: PeerId, proof: bytes, *, now_ms: int) -> None:
        """The same, of a peer that shows ``proof`` itself and is there now: this is one use of its
        invite, and it is remembered."""
        self.check(peer_id, proof, now_ms=now_ms)
        if proof == NO_PROOF:
            return
        try:
            token = self._token_behind(peer_id, proof, now_ms)
        except DeniedError:
            return  # It is in without that.
        if token.public_key in self._met.get(peer_id, {}):
            self.note_seen((peer_id,), now_ms=now_ms)
            return
        one = Acquaintance(token.public_key, peer_id, now_ms, now_ms)
        if self._remember(one):
            self._memory.add(one)

    def note_seen(self, peers: Iterable[PeerId], *, now_ms: int) -> None:
        """These are here now."""
        for peer_id in peers:
            for token, one in self._met.get(peer_id, {}).items():
                if now_ms >= one.last_seen_ms + SEEN_STEP_MS:
                    later = self._met[peer_id][token] = replace(one, last_seen_ms=now_ms)
                    self._memory.add(later)

    def _remember(self, one: Acquaintance) -> bool:
        """Whether there is room for it."""
        by_token = self._met.setdefault(one.peer, {})
        if one.token not in by_token:
            self._uses[one.token] = self._uses.get(one.token, 0) + 1
        by_token[one.token] = one
        if sum(self._uses.values()) <= MAX_MET:
            return True
        shortest = min(self.acquaintances(), key=lambda each: (each.span_ms, -each.first_met_ms))
        self._forget(shortest)
        return shortest != one

    def _forget(self, one: Acquaintance) -> None:
        del self._met[one.peer][one.token]
        if not self._met[one.peer]:
            del self._met[one.peer]
        self._uses[one.token] -= 1
        self._memory.forget(one)

    def _forget_late_comers(self) -> None:
        """Forget the peers that were met between a revocation and its arrival here: they came too
        late."""
        revoked = {
            token.public_key: token.revoked_ms
            for token in self._swarm.statement.tokens
            if token.revoked_ms
        }
        for one in self.acquaintances():
            if one.first_met_ms >= revoked.get(one.token, one.first_met_ms + 1):
                self._forget(one)

    def _token_behind(self, peer_id: PeerId, proof: bytes, now_ms: int) -> Token:
        try:
            message = open_envelope(
                proof,
                Domain.TOKEN_USE,
                now_ms=now_ms,
                swarm=self._swarm.swarm_id,
                max_bytes=MAX_PROOF_BYTES,
            )
            use = decode(message.payload, TokenUse)
        except RemoteProtocolError as error:
            raise DeniedError(
                f"denied: the invite of {peer_id} does not verify: {error}"
            ) from error
        if peer_id_of(use.peer) != peer_id:
            raise DeniedError(f"denied: {peer_id} shows an invite made out to another peer")
        signer = public_key_of(message.signer)
        for token in self._swarm.statement.tokens:
            if token.public_key == signer:
                return token
        raise DeniedError(
            f"denied: the invite of {peer_id} is none of this swarm's, or one that was over long"
            " ago; ask for a new one"
        )
