"""A round in which everyone's update reaches everyone, whole."""

from daemon.rounds.kinds.agreed_round import AgreedRound
from daemon.rounds.parts import Parts
from daemon.rounds.patience import NEIGHBOURS
from daemon.rounds.phase import Phase
from daemon.rounds.updates import Accepts, RoundUpdates, is_whole_model
from ml.averaging.messages import Apply
from ml.opening import StateReady
from protocol.identity import PeerId
from protocol.peers.agreement_messages import Outcome, UpdateRef
from protocol.topology import Topology


class MeshRound(AgreedRound):
    """local steps → pseudo-gradient → offer to all → agree on the set → aggregate → next base.

    Where the swarm's topology is not full, a peer offers to its neighbours only, and passes on what
    it got from others: no peer uploads more than its number of neighbours times all updates.
    Members that pass nothing on could part the rest. So a peer that still waits when half of the
    grace period has passed since its own update was ready offers that to everybody, and does so at
    once in some of the next rounds.

    Example (daemon/rounds/training.py)::

        match choose_exchange(parts.settings, roster_size, parts.max_update_bytes):
            case _:
                return MeshRound(parts, self._updates)
    """

    def __init__(self, parts: Parts, updates: RoundUpdates) -> None:
        super().__init__(parts, updates)
        self._topology = Topology.parse(parts.settings.topology)
        self._is_parted = not parts.patience.neighbours.is_worth_waiting(NEIGHBOURS, self.number)
        self._waits_until: float | None = None
        """Until when neighbours are relied on; None: this peer has nothing to offer yet."""

    @property
    def _accepts(self) -> Accepts:
        return is_whole_model

    @property
    def _held(self) -> dict[PeerId, UpdateRef]:
        return self._updates.held()

    @property
    def _refused(self) -> frozenset[PeerId]:
        return self._updates.refused()

    def _share(self, expected: frozenset[PeerId]) -> None:
        if self._topology.kind == "full":
            self._offers.send(expected)
            return
        parts = self._parts
        neighbours = self._topology.graph(expected, self.number)[parts.me]
        for signer, ref in self._updates.held().items():
            if signer != parts.me:
                self._offers.pass_on(self._updates.offer_of(ref), signer)
        self._offers.send(neighbours)
        self._look_whether_parted()
        if self._is_parted:
            self._offers.send(expected, own_only=True)

    def _look_whether_parted(self) -> None:
        until = self._waits_until
        if self._is_parted or until is None or not super()._to_ask_for:
            return
        if self._parts.clock.monotonic() >= until:
            self._is_parted = True
            self._parts.patience.neighbours.note_absence(NEIGHBOURS, self.number)

    def _next_moment(self, now: float) -> float | None:
        moments = [super()._next_moment(now)]
        if super()._to_ask_for and self._topology.kind != "full" and not self._is_parted:
            moments.append(self._waits_until)
        return min((moment for moment in moments if moment is not None), default=None)

    @property
    def _to_ask_for(self) -> frozenset[PeerId]:
        # Where updates go from neighbour to neighbour, those who are far get them last.
        return super()._to_ask_for if self._topology.kind == "full" else frozenset()

    async def _contribute(self) -> None:
        trained = await self._train(self._parts.worker.train(self.number))
        self._enter(Phase.EXCHANGING)
        self._waits_until = self._parts.clock.monotonic() + self._parts.settings.grace_s / 2
        self._offers.add(trained.updates[0], sample_count=trained.sample_count, loss=trained.loss)

    async def _average(self, outcome: Outcome) -> StateReady:
        parts = self._parts
        if not self._is_parted:
            parts.patience.neighbours.note_contribution(NEIGHBOURS)
        contributions = self._updates.contributions(outcome.updates)
        return await parts.worker.advance(Apply(self.number, contributions))
