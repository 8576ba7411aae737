"""Takes the swarm's state from other peers: for newcomers, for peers that fell behind, after a
partition.

Trusts nobody alone:

- The state to take follows from how many live peers signed that they came to exactly that state
  (daemon/rounds/lineage/succession.py); what a single peer says of others does not count.
- A state that only a few vouch for, so few that all may lie, has to stay the best for a while: the
  others may be on their way here (daemon/rounds/lineage/few.py).
- Its bytes are verified against the root chunk by chunk, from whoever has them, before a round is
  given up for it; and the worker checks what is inside before it believes it.
- A peer that claims a state and does not offer it is left out for a growing time
  (daemon/rounds/lineage/liars.py).
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from daemon.rounds.blobs.store import Use
from daemon.rounds.lineage.few import Few
from daemon.rounds.lineage.liars import Liars
from daemon.rounds.lineage.offers import StateOffers
from daemon.rounds.lineage.position import Position
from daemon.rounds.lineage.succession import Claim, Rivals, Succession
from daemon.rounds.parts import Parts
from ml.averaging.messages import LoadState
from ml.opening import StateReady
from protocol.errors import TransportError, VerificationError, WorkerError
from protocol.identity import PeerId
from protocol.peers.agreement_messages import Certificate
from protocol.peers.peer_messages import CertificateRequest, Standing, StateOffer, StateRequest
from protocol.text import counted

LOOK_S = 0.5
SETTLE_S = 1.0
"""A peer that is a moment behind gets there by itself; only then is anything asked."""
ANSWER_S = 3.0
"""How long the holders of other states get to offer them."""
NOT_TAKEN_S = 5.0
"""How long to wait before states that were not taken are looked at again."""
RETRY_S = 2.0
MAX_ASKED = 64
MAX_BAD_STATES = 1024

_log = logging.getLogger("p2pd.catch_up")


@dataclass(frozen=True, slots=True)
class BetterState:
    """A state to be taken, and who offers it."""

    offer: StateOffer
    certificate: Certificate | None
    holders: frozenset[PeerId]
    claim: Claim | None = None
    """The claim to it; None for round 0's state, for which the founder vouches."""
    path: Path | None = None
    """The file with its bytes, once they are here and checked."""

    @property
    def position(self) -> Position:
        """The round of the state, and its digest."""
        return Position(self.offer.round, self.offer.root)


class CatchUp:
    """Watches for better states than this peer's, and takes them."""

    def __init__(self, parts: Parts, succession: Succession) -> None:
        self._parts = parts
        self._lineage = parts.lineage
        self._standings = parts.standings
        self._speaker = parts.speaker
        self._succession = succession
        self._liars = Liars()
        self._few_holders, self._few_starters = Few(), Few()
        self._offers = StateOffers(parts.standings, parts.speaker, parts.refusals)
        self._bad_states: OrderedDict[bytes, None] = OrderedDict()
        self._taken: Position | None = None
        """The state that was taken from others last."""
        self._fetched = b""
        """The root of the state that was fetched last, in part at least; empty: none."""
        self._news = asyncio.Event()

    def receive_offer(self, peer: PeerId, offer: StateOffer) -> None:
        """``peer`` offers its state; it has to be the one at which it says that it stands."""
        if not self._offers.take(peer, offer):
            self._liars.note(peer, self._parts.clock.monotonic())
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
                    vouches=(self._speaker.vouch(position), *self._standings.vouches(position)),
                ),
            )

    async def find(self, is_about_to_follow: Callable[[Rivals], bool]) -> BetterState:
        """The state to be taken instead of this peer's, once there is one and it is here.

        ``is_about_to_follow`` says whether the round at hand leads to where the rivals are anyway.
        """
        while True:
            rivals = self._rivals()
            if rivals is None or is_about_to_follow(rivals):
                await asyncio.sleep(LOOK_S)
                continue
            before, seen = self._lineage.position, rivals
            for peer in rivals.holders:
                self._speaker.send(
                    peer, CertificateRequest(round=before.round + 1, base=before.base)
                )
            await asyncio.sleep(SETTLE_S)
            rivals = self._rivals()
            if (
                rivals is None
                or self._succession.has_followed(self._lineage, before, seen.target)
                or is_about_to_follow(rivals)
            ):
                continue
            better = await self._ask_for_states(rivals)
            if better is not None:
                better = await self._fetch(better)
            if better is not None:
                return better
            await asyncio.sleep(NOT_TAKEN_S)

    def certificate_of_started(self, same: frozenset[PeerId]) -> Certificate | None:
        """How peers on this very state came to the round that they are in; asks those who are.

        ``same``: the peers that stand on this peer's state. Where this peer came here by
        itself, more than a third of all of them have to say the same: one alone cannot start
        anybody.
        """
        position = self._lineage.position
        started = {
            peer
            for peer in same
            if (standing := self._standings.get(peer)) is not None and standing.started
        }
        offers = self._offers.at(position, frozenset(started))
        for peer in sorted(started - offers.keys())[:MAX_ASKED]:
            self._offers.expect(peer)
            self._speaker.send(peer, StateRequest(round=position.round, base=position.base))
        certificate, supporters = self._offers.best_certificate(offers, frozenset(started))
        enough = started if position == self._taken else same | {self._parts.me}
        if certificate is None or 3 * len(supporters) <= len(enough):
            self._few_starters.forget()
            return None
        if position != self._taken and self._must_wait(self._few_starters, len(supporters)):
            return None
        return certificate

    async def take(self, better: BetterState) -> StateReady | None:
        """Load a state that was fetched, which the lineage then ends in; None when that failed, and
        nothing has changed."""
        offer, path = better.offer, better.path
        assert path is not None, "fetched before it is taken"
        _log.info(
            "taking the state of round %d, %s, from %s; this peer's is of round %d",
            offer.round,
            offer.root.hex()[:16],
            counted(len(better.holders), "peer"),
            self._lineage.position.round,
        )
        try:
            state = await self._parts.worker.advance(LoadState(offer.round, str(path), offer.root))
        except VerificationError as error:
            self._note_bad_state(better, error)
            return None
        except (TransportError, WorkerError) as error:
            _log.warning("the state of round %d was not taken: %s", offer.round, error)
            await asyncio.sleep(RETRY_S)
            return None
        # Only now: a certificate beside a state that is none tells a restart of nothing.
        if better.certificate is not None:
            self._lineage.keep(better.certificate)
        self._fetch_no_other_than(b"")
        self._parts.blobs.add_state(state.state)
        self._taken = Position(offer.round, state.state.root)
        self._lineage.replace(self._taken, better.certificate)
        self._standings.fall_in_step()
        return state

    # Inside

    def _rivals(self) -> Rivals | None:
        return self._succession.find_rivals(self._lineage, self._heard())

    def _heard(self) -> Mapping[PeerId, Standing]:
        """The standings of live peers, without those that made false claims."""
        liars = self._liars.at(self._parts.clock.monotonic())
        return {
            peer: standing for peer, standing in self._standings.live().items() if peer not in liars
        }

    def _note_bad_state(self, better: BetterState, error: Exception) -> None:
        self._fetch_no_other_than(b"")
        self._bad_states[better.offer.root] = None
        if len(self._bad_states) > MAX_BAD_STATES:
            self._bad_states.popitem(last=False)
        for peer in better.holders:
            self._parts.refusals.add(peer, "state", error)
            self._liars.note(peer, self._parts.clock.monotonic())

    async def _fetch(self, better: BetterState) -> BetterState | None:
        """Get the bytes while the round at hand goes on; None if that failed, or if the state is no
        longer one to take."""
        offer, before = better.offer, self._lineage.position
        self._fetch_no_other_than(offer.root)
        try:
            path = await self._parts.blobs.fetch_while_served(
                offer.root,
                offer.size_bytes,
                offer.leaves,
                max_bytes=self._parts.max_state_bytes,
                sources=better.holders,
                use=Use.CATCH_UP,
            )
        except VerificationError as error:
            self._note_bad_state(better, error)
            return None
        except TransportError as error:
            _log.warning("the state of round %d was not taken: %s", offer.round, error)
            return None
        if before != self._lineage.position and not self._is_still_better(better):
            self._fetch_no_other_than(b"")
            return None
        return BetterState(offer, better.certificate, better.holders, better.claim, path)

    def _fetch_no_other_than(self, root: bytes) -> None:
        """Keep what is here of that state, to go on with, and nothing of the one before: those who
        offer states and do not give them fill no disk."""
        if self._fetched not in (b"", root):
            self._parts.blobs.discard(self._fetched, Use.CATCH_UP)
        self._fetched = root

    def _is_still_better(self, better: BetterState) -> bool:
        """Whether to take it, although this peer's state has changed since it was asked for."""
        rivals = self._rivals()
        if rivals is None or self._lineage.knows(better.offer.round, better.offer.root):
            return False
        if better.claim is None:
            return self._lineage.position.round == 0
        claim = Claim(better.position, better.certificate, False, better.claim.supporters)
        return self._succession.should_take(self._lineage, claim, rivals)

    async def _ask_for_states(self, rivals: Rivals) -> BetterState | None:
        mine = self._lineage.position
        self._offers.clear()
        asked = set()
        for peer in [*sorted(rivals.holders), *sorted(rivals.others)][:MAX_ASKED]:
            self._offers.expect(peer)
            if self._speaker.send(peer, StateRequest(round=mine.round, base=mine.base)):
                asked.add(peer)
        with contextlib.suppress(TimeoutError):  # peers that have not answered by then do not count
            async with asyncio.timeout(ANSWER_S):
                while not asked <= self._offers.answered:
                    self._news.clear()
                    await self._news.wait()
        for peer in asked - self._offers.answered:
            # It may be slow; but nobody is hidden behind one that claims and gives nothing.
            self._liars.note(peer, self._parts.clock.monotonic())
        better = [
            found
            for position, by_peer in self._offers.by_position().items()
            if position.base not in self._bad_states
            and (found := self._judge(position, by_peer, rivals)) is not None
        ]
        best = max(
            better,
            key=lambda one: (one.claim.supporters if one.claim else 0, one.position.round),
            default=None,
        )
        if best is None or best.claim is None:
            self._few_holders.forget()
            return best
        return None if self._must_wait(self._few_holders, best.claim.supporters) else best

    def _must_wait(self, few: Few, count: int) -> bool:
        now = self._parts.clock.monotonic()
        return few.must_wait(count, roster_size=len(self._lineage.roster), now=now)

    def _judge(
        self, position: Position, by_peer: dict[PeerId, StateOffer], rivals: Rivals
    ) -> BetterState | None:
        """Whether to take a state that these peers offer."""
        offer = next(iter(by_peer.values()))
        holders = frozenset(by_peer)
        if self._lineage.knows(position.round, position.base):
            return None
        if position == Position(0, self._parts.initial_root):
            # The founder vouches for it, to those who have nothing else yet.
            is_at_0 = self._lineage.position.round == 0
            return BetterState(offer, None, holders) if is_at_0 else None
        supporters = holders | self._supporters(position, by_peer)
        certificate, _ = self._offers.best_certificate(by_peer, supporters)
        claim = Claim(
            position,
            certificate,
            # Peers that came after this peer's state do not know of it.
            descends=any(other.descends for other in by_peer.values()),
            supporters=len(supporters),
        )
        if not self._succession.should_take(self._lineage, claim, rivals):
            return None
        return BetterState(offer, certificate, holders, claim)

    def _supporters(
        self, position: Position, by_peer: dict[PeerId, StateOffer]
    ) -> frozenset[PeerId]:
        """Live peers that signed that they came to this state, and do not stand on a state of this
        peer's own line."""
        live = self._standings.live()
        vouching = self._standings.supporters(position) | self._offers.vouching(position, by_peer)
        return frozenset(
            peer
            for peer in vouching & live.keys()
            if not self._lineage.knows(live[peer].round, live[peer].base)
        )
