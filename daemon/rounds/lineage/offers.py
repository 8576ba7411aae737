"""The states that others offer, and what proves them. No I/O, no time."""

import hashlib
from collections.abc import Mapping

from daemon.net.refusals import Refusals
from daemon.rounds.agreement.certificates import certificate_signers, check_start
from daemon.rounds.lineage.position import Position
from daemon.rounds.lineage.standings import Opener, Standings
from protocol.codec import encode
from protocol.errors import RemoteProtocolError, VerificationError
from protocol.identity import PeerId
from protocol.peers.agreement_messages import Certificate
from protocol.peers.peer_messages import StateOffer

NEAR_ROUNDS = 2
"""A peer may have gone on so far from a state that it vouches for."""


class StateOffers:
    """What came in answer to this peer's questions: one offer of each peer that was asked.

    Example (daemon/rounds/catch_up.py)::

        self._offers.expect(peer)
        if not self._offers.take(peer, offer):
        for position, by_peer in self._offers.by_position().items()
    """

    def __init__(
        self,
        standings: Standings,
        opener: Opener,
        refusals: Refusals,
    ) -> None:
        self._standings = standings
        self._opener = opener
        self._refusals = refusals
        self._asked: set[PeerId] = set()
        self._offers: dict[PeerId, StateOffer] = {}
        self.answered: set[PeerId] = set()
        """The peers that were asked and have answered, well or not."""

    def clear(self) -> None:
        """Forget all offers, and which peers were asked."""
        self._asked.clear()
        self._offers.clear()
        self.answered.clear()

    def expect(self, peer: PeerId) -> None:
        """``peer`` is asked; what it offered before is old."""
        self._asked.add(peer)
        self.answered.discard(peer)
        self._offers.pop(peer, None)

    def take(self, peer: PeerId, offer: StateOffer) -> bool:
        """Note an offer; False when it contradicts what ``peer`` said of itself."""
        if peer not in self._asked:
            return True  # nobody asked, or it comes too late
        self._asked.discard(peer)
        self.answered.add(peer)
        standing = self._standings.get(peer)
        position = Position(offer.round, offer.root)
        try:
            if standing is None or (standing.round, standing.base) != (offer.round, offer.root):
                raise VerificationError(f"{peer} offers another state than where it stands")
            if not offer.vouches or self._standings.signer_of(offer.vouches[0], position) != peer:
                raise VerificationError(f"{peer} offers a state that it does not vouch for")
        except RemoteProtocolError as error:
            self._refusals.add(peer, "state-claim", error)
            return False
        self._offers[peer] = offer
        return True

    def by_position(self) -> dict[Position, dict[PeerId, StateOffer]]:
        """The offers, by state."""
        found: dict[Position, dict[PeerId, StateOffer]] = {}
        for peer, offer in self._offers.items():
            found.setdefault(Position(offer.round, offer.root), {})[peer] = offer
        return found

    def at(self, position: Position, peers: frozenset[PeerId]) -> dict[PeerId, StateOffer]:
        """What these peers offer of one state."""
        offers = self.by_position().get(position, {})
        return {peer: offer for peer, offer in offers.items() if peer in peers}

    def vouching(
        self, position: Position, by_peer: Mapping[PeerId, StateOffer]
    ) -> frozenset[PeerId]:
        """Who signed that it came to ``position``, by what the offers show, and stands there or a
        little further on."""
        found: set[PeerId] = set()
        for peer, offer in by_peer.items():
            for vouch in offer.vouches[1:]:
                try:
                    signer = self._standings.signer_of(vouch, position)
                except RemoteProtocolError as error:
                    self._refusals.add(peer, "vouch", error)
                    break
                standing = self._standings.get(signer)
                if standing is not None and 0 <= standing.round - position.round <= NEAR_ROUNDS:
                    found.add(signer)
        return frozenset(found)

    def best_certificate(
        self, offers: Mapping[PeerId, StateOffer], voters: frozenset[PeerId]
    ) -> tuple[Certificate | None, frozenset[PeerId]]:
        """How the state came about, of several stories the one that most of ``voters`` signed, or
        else show; and who of them shows it."""
        stories: dict[bytes, tuple[int, Certificate, set[PeerId]]] = {}
        for peer, offer in offers.items():
            certificate = offer.certificate
            if certificate is None:
                continue
            try:
                signers = self._signers(certificate, offer)
            except RemoteProtocolError as error:
                self._refusals.add(peer, "certificate", error)
                continue
            key = hashlib.sha256(encode(certificate.outcome)).digest()
            count = len(signers & voters)
            known = stories.get(key)
            if known is None:
                stories[key] = (count, certificate, {peer})
            else:
                known[2].add(peer)
                if count > known[0]:
                    stories[key] = (count, certificate, known[2])
        if not stories:
            return None, frozenset()
        _, certificate, showing = max(
            stories.values(), key=lambda story: (story[0], len(story[2]), story[1].outcome.digest)
        )
        return certificate, frozenset(showing)

    def _signers(self, certificate: Certificate, offer: StateOffer) -> frozenset[PeerId]:
        """Raises :class:`RemoteProtocolError` unless it is how that state came about."""
        if certificate.round != offer.round:
            raise VerificationError(
                f"state of round {offer.round}, certificate of round {certificate.round}"
            )
        if certificate.base == offer.root:
            return check_start(certificate, self._opener.open_agreement)
        signers = certificate_signers(certificate, self._opener.open_agreement)
        if not signers:
            raise VerificationError(f"certificate of round {certificate.round} without a vote")
        return signers
