"""Takes the swarm's state from other peers: for newcomers, for who fell behind, after a partition.

Trusts nobody alone: which state is taken follows from what most of the peers with another state
say (daemon/rounds/lineage/succession.py), its bytes are verified against the root chunk by chunk,
from whoever has them, and the worker checks what is inside before it believes it.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from daemon.rounds.agreement import certificate_signers
from daemon.rounds.lineage.position import Position
from daemon.rounds.lineage.succession import Claim, Rivals, Succession
from daemon.rounds.parts import Parts
from ml.opening import StateReady
from protocol.agreement_messages import Certificate
from protocol.errors import RemoteProtocolError, TransportError, VerificationError, WorkerError
from protocol.identity import PeerId
from protocol.peer_messages import CertificateRequest, StateOffer, StateRequest
from protocol.text import counted

LOOK_S = 0.5
SETTLE_S = 1.0
"""A peer that is a moment behind gets there by itself; only then is anything asked."""
ANSWER_S = 3.0
"""How long the holders of other states get to offer them."""
NOT_TAKEN_S = 5.0
"""How long to wait before states that were not taken are looked at again."""
RETRY_S = 2.0
MAX_BAD_STATES = 1024

_log = logging.getLogger("p2pd.catch_up")


@dataclass(frozen=True, slots=True)
class BetterState:
    """A state to be taken, and who offers it."""

    offer: StateOffer
    holders: frozenset[PeerId]


class CatchUp:
    """Watches for better states than the own one, and takes them."""

    def __init__(self, parts: Parts, succession: Succession) -> None:
        self._parts = parts
        self._lineage = parts.lineage
        self._standings = parts.standings
        self._speaker = parts.speaker
        self._succession = succession
        self._offers: dict[PeerId, StateOffer] = {}
        self._bad_states: OrderedDict[bytes, None] = OrderedDict()
        self._news = asyncio.Event()

    def receive_offer(self, peer: PeerId, offer: StateOffer) -> None:
        """``peer`` offers its state."""
        self._offers[peer] = offer
        self._news.set()

    def answer(self, peer: PeerId, request: StateRequest) -> None:
        """``peer`` asks for this peer's state."""
        position, certificate = self._lineage.position, self._lineage.certificate
        store = self._parts.blobs.store
        if store.has_whole(position.base):
            self._speaker.send(
                peer,
                StateOffer(
                    round=position.round,
                    root=position.base,
                    size_bytes=store.size_bytes(position.base),
                    leaves=store.leaves(position.base),
                    certificate=certificate,
                    descends=self._lineage.knows(request.round, request.base),
                ),
            )

    async def find(self, is_about_to_follow: Callable[[Rivals], bool]) -> BetterState:
        """The state to be taken instead of the own one, once there is one.

        ``is_about_to_follow`` says whether the round at hand leads to where the rivals are anyway.
        """
        while True:
            rivals = self._succession.find_rivals(self._lineage, self._standings.live())
            if rivals is None or is_about_to_follow(rivals):
                await asyncio.sleep(LOOK_S)
                continue
            before, seen = self._lineage.position, rivals
            for peer in rivals.holders:
                self._speaker.send(
                    peer, CertificateRequest(round=before.round + 1, base=before.base)
                )
            await asyncio.sleep(SETTLE_S)
            rivals = self._succession.find_rivals(self._lineage, self._standings.live())
            if (
                rivals is None
                or self._succession.has_followed(self._lineage, before, seen.target)
                or is_about_to_follow(rivals)
            ):
                continue
            better = await self._ask_for_states(rivals)
            if better is not None:
                return better
            await asyncio.sleep(NOT_TAKEN_S)

    def certificate_of_started(self, same: frozenset[PeerId]) -> Certificate | None:
        """How peers on this very state came to the round that they are in; asks those who are.

        ``same``: the peers that stand on the own state.
        """
        position = self._lineage.position
        for peer in same:
            standing = self._standings.get(peer)
            if standing is None or not standing.started:
                continue
            offer = self._offers.pop(peer, None)
            if offer is None or (offer.round, offer.root) != (position.round, position.base):
                self._speaker.send(peer, StateRequest(round=position.round, base=position.base))
            elif offer.certificate is not None and self._voters(peer, offer, offer.certificate):
                return offer.certificate
        return None

    async def take(self, better: BetterState) -> StateReady | None:
        """Fetch and load a state, which the lineage then ends in; None when that failed."""
        offer = better.offer
        _log.info(
            "taking the state of round %d, %s, from %s; the own one is of round %d",
            offer.round,
            offer.root.hex()[:16],
            counted(len(better.holders), "peer"),
            self._lineage.position.round,
        )
        try:
            path = await self._parts.blobs.fetch_while_served(
                offer.root,
                offer.size_bytes,
                offer.leaves,
                max_bytes=self._parts.max_state_bytes,
                sources=better.holders,
            )
            if offer.certificate is not None:
                self._lineage.keep(offer.certificate)
            state = await self._parts.worker.load_state(offer.round, path, offer.root)
        except VerificationError as error:
            self._bad_states[offer.root] = None
            if len(self._bad_states) > MAX_BAD_STATES:
                self._bad_states.popitem(last=False)
            for peer in better.holders:
                self._parts.refusals.add(peer, "state", error)
            return None
        except (TransportError, WorkerError) as error:
            _log.warning("the state of round %d was not taken: %s", offer.round, error)
            await asyncio.sleep(RETRY_S)
            return None
        self._parts.blobs.discard(offer.root)
        self._parts.blobs.store.add_state(state.state)
        position = Position(offer.round, state.state.root)
        self._lineage.replace(position, offer.certificate)
        return state

    async def _ask_for_states(self, rivals: Rivals) -> BetterState | None:
        mine = self._lineage.position
        self._offers.clear()
        asked = frozenset(
            peer
            for peer in rivals.holders
            if self._speaker.send(peer, StateRequest(round=mine.round, base=mine.base))
        )
        with contextlib.suppress(TimeoutError):  # who has not answered by then does not count
            async with asyncio.timeout(ANSWER_S):
                while not asked <= self._offers.keys():
                    self._news.clear()
                    await self._news.wait()
        offers: dict[bytes, dict[PeerId, StateOffer]] = {}
        for peer, offer in self._offers.items():
            if peer in asked and offer.root not in self._bad_states:
                offers.setdefault(offer.root, {})[peer] = offer
        live = self._standings.live().keys()
        for by_peer in sorted(offers.values(), key=len, reverse=True):
            peer, offer = next(iter(by_peer.items()))
            if (offer.round, offer.root) == (0, self._parts.initial_root):
                return BetterState(offer, frozenset(by_peer))  # the founder vouches for it
            voters: frozenset[PeerId] = frozenset()
            if offer.certificate is not None:
                voters = self._voters(peer, offer, offer.certificate)
                if not voters:
                    continue
            claim = Claim(
                Position(offer.round, offer.root),
                offer.certificate,
                # Who came later than this peer's state does not know of it.
                descends=any(other.descends for other in by_peer.values()),
                supporters=len((voters & live) | by_peer.keys()),
            )
            if self._succession.should_take(self._lineage, claim, rivals):
                return BetterState(offer, frozenset(by_peer))
        return None

    def _voters(
        self, peer: PeerId, offer: StateOffer, certificate: Certificate
    ) -> frozenset[PeerId]:
        """Who voted for the round that an offered state ended; nobody when that does not verify."""
        try:
            if certificate.round != offer.round:
                raise VerificationError(
                    f"state of round {offer.round}, certificate of round {certificate.round}"
                )
            return certificate_signers(certificate, self._speaker.open_agreement)
        except RemoteProtocolError as error:
            self._parts.refusals.add(peer, "certificate", error)
            return frozenset()
