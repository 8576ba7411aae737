"""One round, from local steps to the next base, as one coroutine.

The round runs on two legs. One trains and offers this peer's update. The other watches whose
updates are here, closes the round in time and agrees with the roster on the set. Whatever decides
the round, this peer's own agreement or a certificate from peers that were quicker, ends both.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from daemon.agreement import Decided, RoundAgreement, Want
from daemon.clock import Clock
from daemon.exchange import Exchange
from daemon.lineage import Lineage, Position
from daemon.round_clock import RoundClock
from daemon.speaker import Speaker
from daemon.standings import Standings
from daemon.status import Phase
from daemon.trainer import Trainer
from ml.worker_messages import Blob, StateReady, Trained
from protocol.agreement_messages import Certificate
from protocol.envelope import Domain, VerifiedMessage
from protocol.errors import TransportError
from protocol.identity import PeerId
from protocol.peer_messages import (
    Agreement,
    UpdateHeader,
    UpdateOffer,
)
from protocol.swarm import RoundSettings

ASK_AGAIN_S = 2.0
"""How often missing members of a decided set are asked for."""
FETCH_DECIDED_S = 600.0
"""After so long without a decided set's members the round is given up; catching up takes over."""

_log = logging.getLogger("p2pd.round")


class Round:
    """The round that starts from the lineage's present state."""

    def __init__(
        self,
        *,
        me: PeerId,
        lineage: Lineage,
        settings: RoundSettings,
        exchange: Exchange,
        worker: Trainer,
        standings: Standings,
        speaker: Speaker,
        serve: Callable[[Blob], None],
        keep: Callable[[Certificate], None],
        set_phase: Callable[[Phase], None],
        clock: Clock,
    ) -> None:
        """``serve`` hands a file of the worker's to the blob store; ``keep`` stores a certificate
        where a restart finds it."""
        self.base = lineage.position
        self.number = self.base.round + 1
        self._me = me
        self._lineage = lineage
        self._exchange = exchange
        self._worker = worker
        self._standings = standings
        self._speaker = speaker
        self._serve = serve
        self._keep = keep
        self._set_phase = set_phase
        self._clock = clock
        self._agreement = RoundAgreement(
            me,
            round_number=self.number,
            base=self.base.base,
            roster=lineage.roster,
            open_agreement=speaker.open_agreement,
        )
        self._deadlines = RoundClock(
            roster=lineage.roster,
            grace_s=settings.grace_s,
            longest_round_s=settings.longest_round_s,
            now=clock.monotonic(),
        )
        self._wake = asyncio.Event()
        self._offered_to: set[PeerId] = set()
        self._training = False
        self.decided = False
        """Whether the set is agreed on; what remains is to average it."""

    async def run(self) -> StateReady:
        """Train, exchange, agree, average; the new state, which the lineage then ends in.

        Raises :class:`TransportError` when the decided updates cannot be had, and
        :class:`WorkerError` when the worker cannot go on.
        """
        self._exchange.begin_round(self.base)
        async with asyncio.TaskGroup() as legs:
            legs.create_task(self._contribute())
            certificate = await self._decide()
            self.decided = True
            self._worker.finish_training()
        self._keep(certificate)
        await self._obtain(certificate)
        self._set_phase(Phase.APPLYING)
        contributions = self._exchange.contributions(certificate.outcome)
        state = await self._worker.apply(self.number, contributions)
        self._serve(state.state)
        self._lineage.append(Position(self.number, state.state.root), certificate)
        _log.info(
            "round %d: %d updates averaged, accuracy %.4f, state %s",
            self.number,
            len(contributions),
            state.accuracy,
            state.state.root.hex()[:16],
        )
        return state

    def wake(self) -> None:
        """Something changed that the round may depend on."""
        self._wake.set()

    def receive(self, message: VerifiedMessage) -> None:
        """A signed agreement message of this round. Raises :class:`RemoteProtocolError`."""
        self._agreement.receive(message, self._clock.monotonic())
        self.wake()

    def receive_certificate(self, certificate: Certificate) -> None:
        """Others decided. Raises :class:`VerificationError` when the certificate is none."""
        self._agreement.receive_certificate(certificate, self._clock.monotonic())
        self.wake()

    def forget_peer(self, peer: PeerId) -> None:
        """``peer``'s session ended: what it was offered may be lost."""
        self._offered_to.discard(peer)
        self.wake()

    async def _contribute(self) -> None:
        """Train, and offer the update to everyone."""
        self._set_phase(Phase.TRAINING)
        self._training = True
        try:
            trained = await self._worker.train(self.number)
        finally:
            self._training = False
        self._set_phase(Phase.EXCHANGING)
        self._offer(trained)

    def _offer(self, trained: Trained) -> None:
        update = trained.update
        self._serve(update)
        header = UpdateHeader(
            round=self.number,
            base=self.base.base,
            root=update.root,
            size_bytes=update.size_bytes,
            sample_count=trained.sample_count,
            loss=trained.loss,
        )
        offer = UpdateOffer(
            header=self._speaker.seal(Domain.UPDATE, header),
            leaves=update.leaves,
            proof=self._speaker.own_proof,
        )
        self._exchange.add_own(self._me, header, offer, Path(update.path))

    async def _decide(self) -> Certificate:
        """Watch, close and agree, until there is a certificate."""
        while True:
            self._wake.clear()
            now = self._clock.monotonic()
            self._observe(now)
            certificate = await self._pump(now)
            if certificate is not None:
                return certificate
            timers = [self._deadlines.get_timer(now), self._agreement.get_timer()]
            deadline = min((timer for timer in timers if timer is not None), default=None)
            with contextlib.suppress(TimeoutError):  # a deadline, to be looked at above
                async with asyncio.timeout(None if deadline is None else deadline - now):
                    await self._wake.wait()

    def _observe(self, now: float) -> None:
        roster = self._lineage.roster
        ready = self._standings.ready() | {self._me}
        present = self._standings.ready_at(self.base.round, self.base.base)
        self._share_offer(present)
        held = self._exchange.held
        expected = (roster & ready) | present | {self._me}
        self._deadlines.update(expected=expected, held=frozenset(held), now=now)
        self._agreement.set_newcomers((present | {self._me}) - roster)
        self._agreement.set_held(frozenset(held.values()), now)
        self._agreement.set_live(roster & ready, now)
        if self._training and self._deadlines.should_hurry(now):
            self._worker.finish_training()
        if self._deadlines.should_close(now):
            self._set_phase(Phase.AGREEING)
            self._agreement.close(now)
        self._agreement.handle_timer(now)

    async def _pump(self, now: float) -> Certificate | None:
        while messages := self._agreement.messages_to_send():
            for message in messages:
                envelope = self._speaker.seal(Domain.AGREEMENT, message)
                self._speaker.broadcast(Agreement(envelope=envelope))
                self._agreement.receive(self._speaker.open_agreement(envelope), now)
        while (event := self._agreement.next_event()) is not None:
            match event:
                case Decided(certificate):
                    return certificate
                case Want(updates, holders):
                    self._exchange.ask(updates, holders)
        return None

    def _share_offer(self, present: frozenset[PeerId]) -> None:
        """Offer the own update to peers that have not been offered it."""
        offer = self._exchange.own_offer
        if offer is not None:
            for peer in (present | (self._lineage.roster - {self._me})) - self._offered_to:
                if self._speaker.send(peer, offer):
                    self._offered_to.add(peer)

    async def _obtain(self, certificate: Certificate) -> None:
        """Wait until all decided updates are here, asking those who accepted them."""
        missing = self._exchange.lacks(certificate.outcome)
        voters = tuple(self._speaker.open_agreement(raw).signer for raw in certificate.accepts)
        try:
            async with asyncio.timeout(FETCH_DECIDED_S):
                while missing:
                    self._set_phase(Phase.FETCHING)
                    self._exchange.ask(missing, voters)
                    self._wake.clear()
                    with contextlib.suppress(TimeoutError):  # ask again
                        async with asyncio.timeout(ASK_AGAIN_S):
                            await self._wake.wait()
                    missing = self._exchange.lacks(certificate.outcome)
        except TimeoutError:
            raise TransportError(
                f"round {self.number} was decided, but nobody gives {len(missing)} of its updates"
            ) from None
