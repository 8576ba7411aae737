"""What a member that lies makes of what it would say.

Each thing that it can sign, and each that needs no signature; the same for a simulated peer and for
a real one (tests/chaos).
"""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from daemon.rounds.speaker import Speaker
from protocol.codec import decode, encode
from protocol.envelope import Domain
from protocol.identity import PeerId, public_key_of
from protocol.merkle import MAX_CHUNKS
from protocol.peers.agreement_messages import (
    Accept,
    AgreementMessage,
    Certificate,
    Outcome,
    Prepare,
    Promise,
    Proposal,
    Start,
)
from protocol.peers.peer_messages import (
    Agreement,
    CertificateReply,
    ChunkMissing,
    ChunkRequest,
    PeerMessage,
    Standing,
    StateOffer,
    UpdateHeader,
    UpdateOffer,
    UpdateRequest,
    Vouch,
)

LIES = (
    "silence",
    "ballots",
    "claims",
    "split",
    "blame",
    "starts",
    "pairs",
    "certificates",
    "states",
    "ahead",
    "forget",
    "two updates",
    "boast",
    "rubbish",
    "no bytes",
    "missing",
    "repeat",
    "state bytes",
)
NOTHING = b""
FAR = 1000
"""So many rounds ahead says that it is who lies about it."""
NO_STATE = bytes(32)
"""The root of a state that nobody has."""


class Mouth(Protocol):
    """What a peer says in the place of what it would say."""

    def of(self, data: bytes, target: PeerId, bulk: bool) -> list[bytes]:
        """What goes to ``target`` in the place of ``data``."""


class Lies:
    """A liar's mouth. :attr:`kind` says what it does; "truth": nothing."""

    def __init__(
        self, speaker: Speaker, me: PeerId, others: Callable[[], Sequence[PeerId]]
    ) -> None:
        """``others``: whom it can slander, and tell apart."""
        self.kind = "truth"
        self._speaker = speaker
        self._me = me
        self._others = others
        self._said: deque[bytes] = deque(maxlen=64)

    def of(self, data: bytes, target: PeerId, bulk: bool) -> list[bytes]:
        """What goes to ``target`` in the place of ``data``."""
        if bulk:
            return self._chunk(data)
        self._said.append(data)
        message: PeerMessage = decode(data, PeerMessage)
        is_second = sorted(self._others()).index(target) % 2 if target in self._others() else 0
        match self.kind, message:
            case "silence", Agreement():
                return []
            case "forget", UpdateOffer():
                return []
            case "missing", UpdateOffer() | StateOffer():
                return [data, encode(ChunkMissing(root=NO_STATE)), *self._requests()]
            case "repeat", _:
                return [data, self._said[0], self._said[len(self._said) // 2]]
            case "certificates", Agreement() | Standing():
                return [data, encode(CertificateReply(certificate=self._certificate(message)))]
            case (("states" | "ahead"), Standing()):
                return [self._standing(message)]
            case (("states" | "ahead"), StateOffer()):
                number = self._number(message.round)
                lie = {"round": number, "root": NO_STATE, "vouches": (self._vouch(number),)}
                return [encode(msgspec.structs.replace(message, **lie))]
            case "state bytes", UpdateOffer():
                return [self._state_as_update(message)]
            case (("two updates" | "boast"), UpdateOffer()):
                return [self._offer(message, second=bool(is_second))]
            case "pairs", Agreement(envelope):
                return self._pair(data, envelope, target)
            case _, Agreement(envelope):
                return self._agreement(data, envelope, second=bool(is_second))
        return [data]

    def _chunk(self, data: bytes) -> list[bytes]:
        match self.kind:
            case "no bytes":
                return []
            case "rubbish":
                return [data[:-1] + bytes([data[-1] ^ 1])]
        return [data]

    @staticmethod
    def _requests() -> list[bytes]:
        digests = tuple(number.to_bytes(32, "big") for number in range(100))
        return [
            encode(UpdateRequest(digests=digests)),
            encode(ChunkRequest(root=NO_STATE, indexes=(0, 1, MAX_CHUNKS - 1))),
        ]

    def _number(self, number: int) -> int:
        return number + (FAR if self.kind == "ahead" else 0)

    def _vouch(self, number: int) -> bytes:
        return self._speaker.seal(Domain.STATE, Vouch(round=number, base=NO_STATE))

    def _standing(self, message: Standing) -> bytes:
        number = self._number(message.round)
        lie = {"round": number, "base": NO_STATE, "vouch": self._vouch(number)}
        return encode(msgspec.structs.replace(message, contributors=1024, **lie))

    def _offer(self, message: UpdateOffer, *, second: bool) -> bytes:
        signed = self._speaker.open_update(message.header)
        if signed.signer != self._me:
            return encode(message)
        header = decode(signed.payload, UpdateHeader)
        if self.kind == "boast":
            header = msgspec.structs.replace(header, sample_count=1 << 62, loss=float("nan"))
        elif second:
            header = msgspec.structs.replace(header, sample_count=header.sample_count + 1)
        sealed = self._speaker.seal(Domain.UPDATE, header)
        return encode(msgspec.structs.replace(message, header=sealed))

    def _state_as_update(self, message: UpdateOffer) -> bytes:
        """The base itself, where that has one chunk, whose hash is then its root."""
        header = decode(self._speaker.open_update(message.header).payload, UpdateHeader)
        root = header.base
        lie = msgspec.structs.replace(header, root=root, size_bytes=1, part=0, parts=1)
        sealed = self._speaker.seal(Domain.UPDATE, lie)
        return encode(msgspec.structs.replace(message, header=sealed, leaves=(root,)))

    def _certificate(self, message: Agreement | Standing) -> Certificate:
        """One that it signed alone, for a roster of itself."""
        number, base = 0, NO_STATE
        if isinstance(message, Standing):
            number, base = message.round + 1, message.base
        outcome = Outcome(updates=(), newcomers=(public_key_of(self._me),))
        vote = Accept(
            round=number, base=base, ballot=0, outcome_digest=outcome.digest, roster_size=1
        )
        return Certificate(
            round=number,
            base=base,
            ballot=0,
            outcome=outcome,
            roster_size=1,
            accepts=(self._speaker.seal(Domain.AGREEMENT, vote),),
        )

    def _agreement(self, data: bytes, envelope: bytes, *, second: bool) -> list[bytes]:
        signed = self._speaker.open_agreement(envelope)
        content: AgreementMessage = decode(signed.payload, AgreementMessage)
        if signed.signer != self._me:
            return [data]
        changed = self._changed(content, second=second)
        return [data] if changed is None else [self._sealed(changed)]

    def _pair(self, data: bytes, envelope: bytes, target: PeerId) -> list[bytes]:
        """In the place of a start with everybody one with each alone."""
        content: AgreementMessage = decode(
            self._speaker.open_agreement(envelope).payload, AgreementMessage
        )
        if not isinstance(content, Start):
            return [data]
        keys = tuple(sorted(map(public_key_of, (self._me, target))))
        pair = Outcome(updates=(), newcomers=keys)
        accept = Accept(
            round=content.round,
            base=content.base,
            ballot=0,
            outcome_digest=pair.digest,
            roster_size=2,
        )
        start = msgspec.structs.replace(content, outcome=pair)
        return [self._sealed(start), self._sealed(accept)]

    def _sealed(self, content: AgreementMessage) -> bytes:
        return encode(Agreement(envelope=self._speaker.seal(Domain.AGREEMENT, content)))

    def _changed(self, content: AgreementMessage, *, second: bool) -> AgreementMessage | None:
        match self.kind, content:
            case "ballots", Promise():
                return msgspec.structs.replace(content, ballot=content.ballot + 3)
            case "claims", Promise():
                return msgspec.structs.replace(content, held=content.held[:1])
            case "claims", Prepare() | Accept():
                return msgspec.structs.replace(content, outcome_digest=NO_STATE)
            case "blame", Promise():
                slow = tuple(sorted(map(public_key_of, self._others())))
                return msgspec.structs.replace(content, slow_to_lead=slow)
            case "split", Proposal() if second:
                fewer = msgspec.structs.replace(
                    content.outcome, updates=content.outcome.updates[1:]
                )
                return msgspec.structs.replace(content, outcome=fewer)
            case "split", Promise() if second:
                return msgspec.structs.replace(content, held=content.held[1:])
            case "split", Prepare() | Accept() if second:
                digest = hashlib.sha256(content.outcome_digest).digest()
                return msgspec.structs.replace(content, outcome_digest=digest)
            case "starts", Start() if second:
                alone = Outcome(updates=(), newcomers=(public_key_of(self._me),))
                return msgspec.structs.replace(content, outcome=alone)
            case "starts", Promise() | Accept():
                nobody = Outcome(updates=(), newcomers=())
                return Start(round=content.round, base=content.base, outcome=nobody)
        return None
