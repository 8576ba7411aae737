"""A round in which each peer averages one part of the model: reduce-scatter, then all-gather.

Everyone in the roster owns one part. A peer sends each part of its update to the part's owner, the
owner averages what it got and sends the result to all, so a peer sends about twice the model,
however many they are (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", 2009). Peers
agree on the set of averaged parts. All drop a part that a majority did not get, so a member that
dies costs its part and not the round.

Trust: the owner of a part can put anything within the model's bounds into it. Robust aggregation
needs mesh or gossip.
"""

from daemon.rounds.kinds.agreed_round import AgreedRound
from daemon.rounds.parts import Parts
from daemon.rounds.phase import Phase
from daemon.rounds.updates import Accepts, RoundUpdates
from ml.averaging.messages import ApplyParts, PartResult, PartWritten, Reduce
from ml.opening import StateReady
from protocol.identity import PeerId
from protocol.peers.agreement_messages import Outcome, UpdateRef
from protocol.peers.peer_messages import UpdateHeader


class AllReduceRound(AgreedRound):
    """local steps → parts to their owners → averages to all → agree on the parts → next base.

    Example (daemon/rounds/training.py)::

        match choose_exchange(parts.settings, roster_size, parts.max_update_bytes):
            case "allreduce":
                return AllReduceRound(parts, self._updates)
    """

    def __init__(self, parts: Parts, updates: RoundUpdates) -> None:
        super().__init__(parts, updates)
        self._owners = sorted(self._roster)
        self._own_part = self._owners.index(parts.me) if parts.me in self._roster else None
        self._collecting = self._new_clock()

    @property
    def _accepts(self) -> Accepts:
        def accepts(signer: PeerId, header: UpdateHeader) -> bool:
            if header.parts != len(self._owners) or not 0 <= header.part < header.parts:
                return False
            if header.reduced:
                return self._owners[header.part] == signer
            return header.part == self._own_part

        return accepts

    @property
    def _held(self) -> dict[PeerId, UpdateRef]:
        return self._updates.held_reduced()

    @property
    def _refused(self) -> frozenset[PeerId]:
        return self._updates.refused(reduced=True)

    @property
    def _contributed(self) -> dict[PeerId, UpdateRef]:
        """What is here of the part that this peer averages."""
        if self._own_part is None:
            return {}
        return self._updates.held(part=self._own_part)

    def _signers(self, expected: frozenset[PeerId]) -> frozenset[PeerId]:
        return expected & self._roster

    def _should_hurry(self, now: float) -> bool:
        return self._collecting.should_hurry(now) or super()._should_hurry(now)

    def _next_moment(self, now: float) -> float | None:
        moments = (super()._next_moment(now), self._collecting.get_timer(now))
        return min((moment for moment in moments if moment is not None), default=None)

    def _observe(self, now: float) -> None:
        self._collect(now)
        super()._observe(now)

    def _collect(self, now: float) -> frozenset[PeerId]:
        """Note what is here of this peer's part. Returns the awaited peers that have sent
        nothing."""
        _, expected = self._company.look()
        awaited = expected - self._updates.refused()
        held = frozenset(self._contributed)
        self._collecting.update(expected=awaited, held=held, now=now)
        return awaited - held

    async def _contribute(self) -> None:
        parts = self._parts
        count = len(self._owners)
        # Each begins with another part, and its own, which goes nowhere, comes last.
        first = 0 if self._own_part is None else (self._own_part + 1) % count
        trained = await self._train(parts.worker.train(self.number, count, first, self))
        self._enter(Phase.EXCHANGING)
        if self._own_part is None:
            return
        absent = self._collect(now := parts.clock.monotonic())
        while not self._collecting.should_close(now):
            await self._wait_for_change(self._collecting.get_timer(now))
            absent = self._collect(now := parts.clock.monotonic())
        # Contributing clears no absence: only a reduced part that arrives does.
        self._company.note(in_time=frozenset(), late=absent)
        contributions = self._updates.contributions(self._contributed.values())
        reduced = await parts.worker.ask(Reduce(self.number, self._own_part, count, contributions))
        self._offers.add(
            reduced.update,
            sample_count=reduced.sample_count,
            loss=trained.loss,
            part=self._own_part,
            parts=count,
            reduced=True,
        )

    def part_written(self, part: int, written: PartWritten) -> None:
        """See :class:`PartTaker`: it goes to its owner while the next one is encoded."""
        self._offers.add(
            written.update,
            sample_count=written.sample_count,
            loss=written.loss,
            part=part,
            parts=len(self._owners),
            audience=self._owners[part],
        )

    async def _average(self, outcome: Outcome) -> StateReady:
        parts = self._parts
        results = tuple(
            PartResult(part=update.header.part, path=str(path))
            for update, path in self._updates.paths(outcome.updates)
        )
        return await parts.worker.advance(ApplyParts(self.number, len(self._owners), results))
