"""Who may take part: the chain founder → token → peer, which every peer checks by itself.

Invariants: the founder's signature over the swarm statement vouches for the tokens in it; a token's
secret half signs exactly one peer id per use; bans win over everything. Neither the rendezvous nor
a relay is trusted with any of this. Whom an invite let in while it held stays in when it has
expired or is used up, as far as this peer remembers.
"""

from collections.abc import Callable, Mapping

from protocol.codec import Message, decode, encode
from protocol.envelope import Domain, open_envelope, seal_envelope
from protocol.errors import VerificationError
from protocol.identity import Identity, PeerId, peer_id_of, public_key_of
from protocol.swarm import UNLIMITED, Swarm, Token, is_banned

MAX_PROOF_BYTES = 1024
MAX_ADMITTED = 4096
"""Peers that are remembered of each token; more are not let in by it."""
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


class AdmissionBook:
    """Decides who is in. Remembers which peers each token let in, to hold it to its uses."""

    def __init__(
        self,
        swarm: Swarm,
        *,
        admitted: Mapping[bytes, frozenset[PeerId]] | None = None,
        on_admitted: Callable[[Mapping[bytes, frozenset[PeerId]]], None] = lambda admitted: None,
    ) -> None:
        """``admitted``: peers by the token that let them in, from before; ``on_admitted`` is called
        with all of them when one more is in."""
        self._swarm = swarm
        self._admitted_by = dict(admitted or {})
        self._on_admitted = on_admitted

    def replace_statement(self, swarm: Swarm) -> None:
        """Decide by a newer statement from now on."""
        self._swarm = swarm

    def check(self, peer_id: PeerId, proof: bytes, *, now_ms: int) -> None:
        """Return if ``peer_id`` may take part. Raises :class:`DeniedError` with the reason."""
        statement = self._swarm.statement
        if is_banned(self._swarm, peer_id):
            raise DeniedError(f"denied: {peer_id} was banned by the swarm's founder")
        if statement.open or peer_id == self._swarm.founder:
            return
        if public_key_of(peer_id) in statement.members:
            return
        if proof == NO_PROOF:
            raise DeniedError(f"denied: {peer_id} shows no invite and the swarm is by invitation")
        token = self._token_behind(peer_id, proof, now_ms)
        admitted = self._admitted_by.get(token.public_key, frozenset())
        if peer_id in admitted:
            return
        if now_ms >= token.expires_ms:
            raise DeniedError(f"denied: the invite of {peer_id} has expired; ask for a new one")
        if token.uses != UNLIMITED and len(admitted) >= token.uses:
            raise DeniedError(
                f"denied: the invite of {peer_id} was used {len(admitted)} times already,"
                f" {token.uses} allowed; ask for a new one"
            )
        if len(admitted) >= MAX_ADMITTED:
            raise DeniedError(
                f"denied: the invite of {peer_id} let in {MAX_ADMITTED} others; ask for a new one"
            )
        self._admitted_by[token.public_key] = admitted | {peer_id}
        self._on_admitted(self._admitted_by)

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
        except VerificationError as error:
            raise DeniedError(
                f"denied: the invite of {peer_id} does not verify: {error}"
            ) from error
        if peer_id_of(use.peer) != peer_id:
            raise DeniedError(f"denied: {peer_id} shows an invite made out to another peer")
        for token in self._swarm.statement.tokens:
            if peer_id_of(token.public_key) == message.signer:
                return token
        raise DeniedError(f"denied: the invite of {peer_id} was not signed by this swarm's founder")
