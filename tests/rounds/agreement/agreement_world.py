"""Agreement cores of one round back to back: an in-memory network with a fake clock, whose messages
come in a random order."""

import functools
import random
from collections.abc import Callable, Iterable

from daemon.rounds.agreement.agreement import RoundAgreement
from daemon.rounds.agreement.events import Contradiction, Decided, Foul, Want, WantPromises
from daemon.rounds.agreement.vote_book import OwnVotes
from protocol.codec import encode
from protocol.envelope import Domain, VerifiedMessage, open_envelope, seal_envelope
from protocol.identity import Identity, PeerId
from protocol.peers.agreement_messages import (
    AgreementMessage,
    Certificate,
    Outcome,
    UpdateRef,
)

SWARM = b"s" * 32
BASE = b"b" * 32
ROUND = 7


@functools.cache
def identity(number: int) -> Identity:
    return Identity(number.to_bytes(32, "big"))


def ref(peer: Identity, digest: bytes = b"") -> UpdateRef:
    return UpdateRef(signer=peer.public_key, digest=digest or peer.public_key)


def sealed(peer: Identity, message: AgreementMessage) -> bytes:
    return seal_envelope(peer, Domain.AGREEMENT, encode(message), swarm=SWARM, sequence=0)


@functools.lru_cache(maxsize=8192)
def opened(raw: bytes) -> VerifiedMessage:
    return open_envelope(raw, Domain.AGREEMENT, now_ms=0, swarm=SWARM)


class MemoryVotes:
    """Votes that outlive the core that cast them, not the test."""

    def __init__(self) -> None:
        self.votes: dict[tuple[int, bytes], OwnVotes] = {}

    def find(self, round_number: int, base: bytes) -> OwnVotes | None:
        return self.votes.get((round_number, base))

    def keep(self, votes: OwnVotes) -> None:
        self.votes[(votes.round, votes.base)] = votes


class TestVoice:
    """Signs as one peer."""

    __test__ = False

    def __init__(self, peer: Identity) -> None:
        self._peer = peer

    def seal_agreement(self, message: AgreementMessage) -> bytes:
        return sealed(self._peer, message)

    def open_agreement(self, raw: bytes) -> VerifiedMessage:
        return opened(raw)


class Swarm:
    """Some peers' agreement cores and the messages between them, delivered in a random order."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.peers = {peer.peer_id: peer for peer in map(identity, range(1, count + 1))}
        self.ids = sorted(self.peers)
        roster = frozenset(self.peers)
        self.books = {peer: MemoryVotes() for peer in self.peers}
        self.cores = {peer: self.core(peer, roster) for peer in self.peers}
        self.held: dict[PeerId, set[UpdateRef]] = {peer: set() for peer in self.peers}
        self.dead: set[PeerId] = set()
        self.blamed: list[tuple[PeerId, Contradiction | Foul]] = []
        self.flying: list[tuple[PeerId, bytes]] = []
        self.decided: dict[PeerId, Certificate] = {}
        self.may_deliver: Callable[[PeerId, PeerId], bool] = lambda source, target: True

    def core(self, peer: PeerId, roster: frozenset[PeerId]) -> RoundAgreement:
        return RoundAgreement(
            peer,
            round_number=ROUND,
            base=BASE,
            roster=roster,
            voice=TestVoice(self.peers[peer]),
            votes=self.books[peer],
        )

    def hold(self, peer: PeerId, refs: Iterable[UpdateRef]) -> None:
        self.held[peer].update(refs)
        self.cores[peer].set_held(frozenset(self.held[peer]), self.now)

    def hold_all(self) -> None:
        for peer in self.ids:
            self.hold(peer, [ref(other) for other in self.peers.values()])

    def kill(self, peer: PeerId) -> None:
        self.dead.add(peer)

    def notice_deaths(self) -> None:
        for peer in self.ids:
            if peer not in self.dead:
                self.cores[peer].set_live(frozenset(self.ids) - self.dead, self.now)

    def collect(self, peer: PeerId) -> None:
        core = self.cores[peer]
        for raw in core.envelopes_to_send():
            self.flying += [
                (target, raw)
                for target in self.ids
                if target != peer and self.may_deliver(peer, target)
            ]
        while (event := core.next_event()) is not None:
            match event:
                case Decided(certificate):
                    assert self.decided.setdefault(peer, certificate) == certificate
                case Want(updates, holders):
                    for item in updates:
                        sources = [
                            other
                            for other in holders
                            if other not in self.dead and item in self.held[other]
                        ]
                        if sources:
                            self.hold(peer, [item])
                case WantPromises(digests, leader):
                    for digest in digests:
                        promise = self.promise_of(leader, digest)
                        if promise is not None and leader not in self.dead:
                            self.flying.append((peer, promise))
                case Contradiction() | Foul():
                    self.blamed.append((peer, event))

    def promise_of(self, leader: PeerId, digest: bytes) -> bytes | None:
        return self.cores[leader].envelope(digest)

    def deliver(self, most: int = 1_000_000) -> None:
        for _ in range(most):
            for peer in self.ids:
                if peer not in self.dead:
                    self.collect(peer)
            if not self.flying:
                return
            target, raw = self.flying.pop(self.random.randrange(len(self.flying)))
            if target in self.dead:
                continue
            message = opened(raw)
            if target in self.decided and message.signer not in self.dead | self.decided.keys():
                # A peer that has decided answers with the certificate (daemon/rounds/at_hand.py).
                self.cores[message.signer].receive_certificate(self.decided[target], self.now)
            else:
                self.cores[target].receive(message, self.now)

    def close(self, *peers: PeerId) -> None:
        for peer in peers or self.ids:
            if peer not in self.dead:
                self.cores[peer].close(self.now)

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            timers = [
                (timer, peer)
                for peer in self.ids
                if peer not in self.dead
                and (timer := self.cores[peer].get_timer()) is not None
                and timer <= end
            ]
            if not timers:
                self.now = end
                return
            self.now = max(self.now, min(timers)[0])
            for timer, peer in timers:
                if timer <= self.now:
                    self.cores[peer].handle_timer(self.now)
            self.deliver()

    def outcomes(self) -> set[Outcome]:
        return {certificate.outcome for certificate in self.decided.values()}

    @property
    def survivors(self) -> set[PeerId]:
        return set(self.ids) - self.dead
