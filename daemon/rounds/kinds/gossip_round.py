"""A round without agreement: a peer averages its parameters with those of a few partners.

The partners follow from the members and the round (protocol/topology.py), so nothing is
negotiated. Peers hold different parameters and come closer to each other round by round (D-PSGD,
Lian et al. 2017); there is no common base, so nothing is committed and nobody needs to catch up as
long as the round numbers stay close. A peer that is too slow, or gone, is left out of its partners'
averages, where its weight falls to the averaging peer itself.
"""

import asyncio
import logging

from daemon.rounds.kinds.own_offers import OwnOffers
from daemon.rounds.lineage.position import Position
from daemon.rounds.parts import Parts
from daemon.rounds.phase import Phase
from daemon.rounds.updates import RoundUpdates, is_whole_model
from ml.averaging.messages import Mix, Neighbour
from ml.opening import StateReady
from protocol.envelope import VerifiedMessage
from protocol.errors import VerificationError
from protocol.identity import PeerId
from protocol.peers.agreement_messages import Certificate
from protocol.topology import Graph, Topology, metropolis_weights

NEAR_ROUNDS = 1
"""Peers this close are partners; those further away catch up, or are waited for by nobody."""

_log = logging.getLogger("p2pd.round")


class GossipRound:
    """local steps → parameters to the partners → average with theirs.

    Example (daemon/rounds/training.py)::

        match choose_exchange(parts.settings, roster_size, parts.max_update_bytes):
            case "gossip":
                return GossipRound(parts, self._updates)
    """

    def __init__(self, parts: Parts, updates: RoundUpdates) -> None:
        self.base = parts.lineage.position
        self.number = self.base.round + 1
        self.phase = Phase.TRAINING
        self.decided = False
        self.shortage = ""
        """Always empty: gossip averages with whatever partners are present."""
        self.averaged = 1
        """How many peers' parameters the new state is made of."""
        self._closes_at: float | None = None
        self._parts = parts
        self._updates = updates
        self._topology = Topology.parse(parts.settings.topology)
        self._graphs: dict[int, tuple[frozenset[PeerId], Graph[PeerId]]] = {}
        """Who exchanges with whom, by round, with the members of which it was made."""
        # In the headers round 0's state stands for the base, which is every peer's own.
        self._common = Position(self.base.round, parts.initial_root)
        self._offers = OwnOffers(parts, updates, self._common)

    async def run(self) -> StateReady:
        """Train, exchange with the partners, average. Raises :class:`WorkerError`."""
        async with asyncio.TaskGroup() as tasks:
            offering = tasks.create_task(self._offer())
            state = await self._train_and_mix()
            offering.cancel()
        return state

    async def _train_and_mix(self) -> StateReady:
        parts = self._parts
        self._updates.begin_round(self._common, is_whole_model)
        self._enter(Phase.TRAINING)
        trained = await parts.worker.train(self.number)
        self._enter(Phase.EXCHANGING)
        self._offers.add(trained.updates[0], sample_count=trained.sample_count, loss=trained.loss)
        deadline = self._closes_at = parts.clock.monotonic() + parts.settings.grace_s
        while self.awaited and (now := parts.clock.monotonic()) < deadline:
            await parts.changes.wait(deadline - now)
        held = frozenset(self._updates.held())
        parts.patience.updates.note(self.number, in_time=held, late=self.awaited)
        self.decided = True
        self._closes_at = None
        self._enter(Phase.APPLYING)
        neighbours = self._neighbours()
        self.averaged = 1 + len(neighbours)
        state = await parts.worker.advance(Mix(self.number, trained.updates[0].path, neighbours))
        parts.blobs.add_state(state.state)
        parts.lineage.append(Position(self.number, state.state.root), None)
        _log.info("round %d: averaged with %d partners", self.number, len(neighbours))
        return state

    @property
    def awaited(self) -> frozenset[PeerId]:
        """The peers whose parameters this round waits for, as long as that pays. Who is beyond this
        round has offered them before it said so, or does not."""
        offered = self._updates.offered()
        missing = frozenset(
            peer
            for peer in self._partners() - self._updates.held().keys()
            if peer in offered or not self._is_beyond(peer)
        )
        return missing - self._parts.patience.updates.passed_over(missing, self.number)

    @property
    def closes_in_s(self) -> float | None:
        """Seconds until the round waits for nobody any more; None while it trains or averages."""
        if self._closes_at is None:
            return None
        return max(0.0, self._closes_at - self._parts.clock.monotonic())

    def _is_beyond(self, peer: PeerId) -> bool:
        standing = self._parts.standings.get(peer)
        return standing is not None and standing.round >= self.number

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._parts.history.enter(phase, self.number)

    async def _offer(self) -> None:
        """Offer what there is to the partners, now and whenever something changes; and to those
        who think that they are, since they know other members: to as many others as partners."""
        while True:
            partners = self._partners()
            others = sorted(self._updates.offered() - partners - {self._parts.me})
            self._offers.send(partners.union(others[: len(partners)]))
            await self._parts.changes.wait()

    def receive(self, message: VerifiedMessage) -> None:
        """Nothing is agreed on in gossip. Raises :class:`VerificationError`."""
        raise VerificationError(f"agreement in a swarm that gossips, from {message.signer}")

    def receive_certificate(self, certificate: Certificate) -> None:
        """Nothing is agreed on in gossip. Raises :class:`VerificationError`."""
        raise VerificationError(f"certificate of round {certificate.round} in a swarm that gossips")

    def forget_peer(self, peer: PeerId) -> None:
        """``peer``'s session ended."""
        self._offers.forget(peer)

    @property
    def concerned(self) -> frozenset[PeerId]:
        """Whom it concerns that this peer has come to another round: its partners of now, and
        those of the next one."""
        return self._partners() | self._partners(self.number + 1)

    def _members(self) -> frozenset[PeerId]:
        """Peers that are in this round, or in the one before or after it, and this one.

        Those who say so seldom are thought to be as far from this peer as when they said it last;
        those who have no session with it, since the swarm is large, to be near. Who has offered
        its parameters is in, though it may be done by now and ready for nothing more.
        """
        standings, offered = self._parts.standings, self._updates.offered()
        near = frozenset(
            peer
            for peer, standing in standings.live().items()
            if peer in offered
            or (
                standing.ready
                and min(abs(standing.round - self.base.round), abs(standings.lead(peer)))
                <= NEAR_ROUNDS
            )
        )
        return near | self._parts.view.beyond | {self._parts.me}

    def _partners(self, number: int = 0) -> frozenset[PeerId]:
        """This peer's partners in that round, by default in this one, as far as it has a session
        with them."""
        return self._graph(number or self.number)[self._parts.me] - self._parts.view.beyond

    def _graph(self, number: int) -> Graph[PeerId]:
        members = self._members()
        known = self._graphs.get(number)
        if known is None or known[0] != members:  # It takes a hash of each member's id, and more.
            known = self._graphs[number] = (members, self._topology.graph(members, number))
        return known[1]

    def _neighbours(self) -> tuple[Neighbour, ...]:
        parts = self._parts
        weights = metropolis_weights(self._graph(self.number), parts.me)
        held = self._updates.held()
        present = [peer for peer in sorted(weights) if peer in held]
        files = self._updates.paths(held[peer] for peer in present)
        return tuple(
            Neighbour(peer_id=peer, path=str(path), weight=weights[peer])
            for peer, (_, path) in zip(present, files, strict=True)
        )
