"""A round without agreement: a peer averages its parameters with those of a few partners.

Who the partners are follows from the members and the round (protocol/topology.py), so nothing is
negotiated. Peers hold different parameters and come closer to each other round by round (D-PSGD,
Lian et al. 2017); there is no common base, so nothing is committed and nobody needs to catch up as
long as the round numbers stay close. A peer that is too slow, or gone, is left out of its partners'
averages, where its weight falls to the averaging peer itself.
"""

import asyncio
import contextlib
import logging
from pathlib import Path

from daemon.rounds.agreed_round import OwnOffers, RoundParts
from daemon.rounds.lineage.lineage import Position
from daemon.rounds.phase import Phase
from daemon.rounds.updates import is_whole_model
from ml.worker.messages import Neighbour, StateReady
from protocol.agreement_messages import Certificate
from protocol.envelope import VerifiedMessage
from protocol.errors import VerificationError
from protocol.identity import PeerId
from protocol.topology import Topology, metropolis_weights

NEAR_ROUNDS = 1
"""Peers this close are partners; those further away catch up, or are waited for by nobody."""

_log = logging.getLogger("p2pd.round")


class GossipRound:
    """local steps → parameters to the partners → average with theirs."""

    def __init__(self, parts: RoundParts, initial_root: bytes) -> None:
        """``initial_root``: round 0's state, which stands for the base in the headers."""
        self.base = parts.lineage.position
        self.number = self.base.round + 1
        self.decided = False
        self.shortage = ""
        """None ever: its rules do with whatever partners there are."""
        self.averaged = 1
        """How many peers' parameters the new state is made of."""
        self._closes_at: float | None = None
        self._parts = parts
        self._topology = Topology.parse(parts.settings.topology)
        self._common = Position(self.base.round, initial_root)
        self._offers = OwnOffers(parts, self._common)
        self._changed = asyncio.Event()

    async def run(self) -> StateReady:
        """Train, exchange with the partners, average. Raises :class:`WorkerError`."""
        parts = self._parts
        parts.exchange.begin_round(self._common, is_whole_model)
        parts.set_phase(Phase.TRAINING)
        trained = await parts.worker.train(self.number)
        parts.set_phase(Phase.EXCHANGING)
        self._offers.add(trained.updates[0], sample_count=trained.sample_count, loss=trained.loss)
        deadline = self._closes_at = parts.clock.monotonic() + parts.settings.grace_s
        while not self._is_complete() and parts.clock.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):  # the deadline, looked at above
                async with asyncio.timeout(deadline - parts.clock.monotonic()):
                    await self._changed.wait()
        self.decided = True
        self._closes_at = None
        parts.set_phase(Phase.APPLYING)
        neighbours = self._neighbours()
        self.averaged = 1 + len(neighbours)
        state = await parts.worker.mix(self.number, Path(trained.updates[0].path), neighbours)
        parts.serve_state(state.state)
        parts.lineage.append(Position(self.number, state.state.root), None)
        _log.info(
            "round %d: averaged with %d partners, accuracy %.4f",
            self.number,
            len(neighbours),
            state.accuracy,
        )
        return state

    @property
    def awaited(self) -> frozenset[PeerId]:
        """Whose parameters are waited for."""
        return self._partners() - self._parts.exchange.held().keys()

    @property
    def closes_in_s(self) -> float | None:
        """After so long nobody is waited for any more; None while it trains, or averages."""
        if self._closes_at is None:
            return None
        return max(0.0, self._closes_at - self._parts.clock.monotonic())

    def wake(self) -> None:
        """Something changed that the round may depend on."""
        self._offers.send(self._partners())
        self._changed.set()
        self._changed = asyncio.Event()

    def receive(self, message: VerifiedMessage) -> None:
        """Nothing is agreed on in gossip. Raises :class:`VerificationError`."""
        raise VerificationError(f"agreement in a swarm that gossips, from {message.signer}")

    def receive_certificate(self, certificate: Certificate) -> None:
        """Nothing is agreed on in gossip. Raises :class:`VerificationError`."""
        raise VerificationError(f"certificate of round {certificate.round} in a swarm that gossips")

    def forget_peer(self, peer: PeerId) -> None:
        """``peer``'s session ended."""
        self._offers.forget(peer)
        self.wake()

    def _members(self) -> frozenset[PeerId]:
        """Peers that are in this round, or in the one before or after it, and this one."""
        parts = self._parts
        return frozenset(
            peer
            for peer, standing in parts.standings.live().items()
            if standing.ready and abs(standing.round - self.base.round) <= NEAR_ROUNDS
        ) | {parts.me}

    def _partners(self) -> frozenset[PeerId]:
        return self._topology.graph(self._members(), self.number)[self._parts.me]

    def _is_complete(self) -> bool:
        """Whether every partner's parameters of this round are here."""
        return self._partners() <= self._parts.exchange.held().keys()

    def _neighbours(self) -> tuple[Neighbour, ...]:
        parts = self._parts
        weights = metropolis_weights(self._topology.graph(self._members(), self.number), parts.me)
        held = parts.exchange.held()
        present = [peer for peer in sorted(weights) if peer in held]
        files = parts.exchange.paths(held[peer] for peer in present)
        return tuple(
            Neighbour(peer_id=peer, path=str(path), weight=weights[peer])
            for peer, (_, path) in zip(present, files, strict=True)
        )
