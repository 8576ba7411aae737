"""One round, from local steps to the next base, in a swarm that agrees on each round's updates.

The round runs on two legs. One trains and offers what this peer contributes. The other watches
whose updates are here, closes the round in time and agrees with the roster on the set. The decision
ends both: it comes from this peer's own agreement, or as a certificate from peers that were
quicker.

Where the swarm's rule needs several updates (krum), a round is not closed while fewer can come: it
waits, and goes on by itself once enough peers are here, newcomers included. If the peers agree on
fewer all the same, no update is averaged and all keep their state (daemon/rounds/agreement/).

The kinds of rounds say what is exchanged and how it becomes the next state:
daemon/rounds/kinds/mesh_round.py and daemon/rounds/kinds/allreduce_round.py.
"""

import abc
import asyncio
import logging
from collections.abc import Awaitable

from daemon.rounds.agreement.agreement import RoundAgreement
from daemon.rounds.agreement.certificates import weakness
from daemon.rounds.agreement.events import (
    Contradiction,
    Decided,
    Foul,
    Led,
    PromisedInTime,
    Want,
    WantPromises,
)
from daemon.rounds.agreement.quorums import liars_of
from daemon.rounds.agreement.states import AgreementState
from daemon.rounds.kinds.closing import Closing
from daemon.rounds.kinds.company import Company
from daemon.rounds.kinds.elsewhere import Elsewhere
from daemon.rounds.kinds.own_offers import OwnOffers
from daemon.rounds.lineage.position import Position
from daemon.rounds.parts import Parts
from daemon.rounds.phase import Phase
from daemon.rounds.updates import Accepts, RoundUpdates
from ml.opening import StateReady, Trained
from protocol.envelope import VerifiedMessage
from protocol.errors import TransportError
from protocol.identity import PeerId
from protocol.peers.agreement_messages import Certificate, Outcome, UpdateRef
from protocol.peers.peer_messages import Agreement, PromiseRequest
from protocol.text import counted

ASK_AGAIN_S = 2.0
"""How often missing members of a decided set are asked for."""
FETCH_DECIDED_S = 600.0
"""A round that lacks decided updates for so long is given up; catching up takes over."""
_log = logging.getLogger("p2pd.round")


class AgreedRound(abc.ABC):
    """The round that starts from the lineage's present state.

    Example (daemon/rounds/training.py)::

        round_ = self._new_round()
        self.last_state = state = await round_.run()
        self._evaluations.round_ended(state, round_.averaged)
    """

    def __init__(self, parts: Parts, updates: RoundUpdates) -> None:
        self.base = parts.lineage.position
        self.number = self.base.round + 1
        self.phase = Phase.TRAINING
        self.decided = False
        """Whether the set is agreed on; what remains is to average it."""
        self.shortage = ""
        """Text for people: the peers or updates that the round needs before it can close; empty:
        none."""
        self.awaited: frozenset[PeerId] = frozenset()
        """The peers whose updates this round waits for."""
        self.averaged = 0
        """How many updates the new state is made of."""
        self._needed = parts.needed_updates
        self._parts = parts
        self._updates = updates
        self._company = Company(parts, self.base)
        self._roster = self._company.roster
        self._offers = OwnOffers(parts, updates, self.base)
        self._agreement = RoundAgreement(
            parts.me,
            round_number=self.number,
            base=self.base.base,
            roster=self._roster,
            voice=parts.speaker,
            votes=parts.votes,
            needed_updates=self._needed,
            past=self._company.past,
        )
        self._deadlines = self._new_clock()
        self._asks = Elsewhere(most=liars_of(len(self._roster)) + 1)
        self._training = False
        self._has_told = False
        self._has_noted = False

    # What the kinds of rounds differ in

    @property
    @abc.abstractmethod
    def _accepts(self) -> Accepts:
        """The updates that have a place in this round."""

    @property
    @abc.abstractmethod
    def _held(self) -> dict[PeerId, UpdateRef]:
        """What is agreed on, as far as it is here."""

    @property
    @abc.abstractmethod
    def _refused(self) -> frozenset[PeerId]:
        """Who signed such a thing that was refused, and so is not waited for."""

    @abc.abstractmethod
    async def _contribute(self) -> None:
        """Train, and offer what this peer contributes."""

    @abc.abstractmethod
    async def _average(self, outcome: Outcome) -> StateReady:
        """The next state, from a decided set that is here."""

    def _signers(self, expected: frozenset[PeerId]) -> frozenset[PeerId]:
        """Who of those that take part signs something that is agreed on."""
        return expected

    def _share(self, expected: frozenset[PeerId]) -> None:
        """Offer what there is to those who take part."""
        self._offers.send(expected)

    def _should_hurry(self, now: float) -> bool:
        """Whether a training that still runs should end with what it has."""
        return self._deadlines.should_hurry(now)

    def _next_moment(self, now: float) -> float | None:
        """When to look again though nothing has changed."""
        moments = (
            self._deadlines.get_timer(now),
            self._agreement.get_timer(),
            self._asks.get_timer(self._to_ask_for),
        )
        return min((moment for moment in moments if moment is not None), default=None)

    # The round

    async def run(self) -> StateReady:
        """Train, exchange, agree, average; the new state, which the lineage then ends in.

        Raises :class:`TransportError` when the decided updates cannot be had, and
        :class:`WorkerError` when the worker cannot go on.
        """
        parts = self._parts
        self._updates.begin_round(self.base, self._accepts)
        async with asyncio.TaskGroup() as legs:
            contributing = legs.create_task(self._contribute())
            certificate = await self._decide()
            self.decided = True
            await self._end_contributing(contributing)
        parts.lineage.keep(certificate)
        await self._obtain(certificate)
        self._enter(Phase.APPLYING)
        self.averaged = len(certificate.outcome.updates)
        state = await self._average(certificate.outcome)
        parts.blobs.add_state(state.state)
        parts.lineage.append(Position(self.number, state.state.root), certificate)
        _log.info(
            "round %d: %s averaged, state %s%s",
            self.number,
            counted(len(certificate.outcome.updates), "update"),
            state.state.root.hex()[:16],
            weakness(certificate),
        )
        return state

    @property
    def closes_in_s(self) -> float | None:
        """Seconds until the round waits for nobody any more; None once it is closed."""
        if self._agreement.state is not AgreementState.OPEN:
            return None
        return self._deadlines.closes_in_s(self._parts.clock.monotonic())

    @property
    def sits_out(self) -> str:
        """Why this peer does not vote; empty: it does."""
        return self._agreement.sits_out

    def receive(self, message: VerifiedMessage) -> None:
        """A signed agreement message of this round. Raises :class:`RemoteProtocolError`."""
        self._agreement.receive(message, self._parts.clock.monotonic())
        self._parts.changes.notify()

    def receive_certificate(self, certificate: Certificate) -> None:
        """Others decided. Raises :class:`VerificationError` when the certificate is none."""
        self._agreement.receive_certificate(certificate, self._parts.clock.monotonic())
        self._parts.changes.notify()

    def promise(self, digest: bytes) -> bytes | None:
        """A signed promise that a proposal named."""
        return self._agreement.envelope(digest)

    def forget_peer(self, peer: PeerId) -> None:
        """``peer``'s session ended: what it was offered may be lost."""
        self._offers.forget(peer)

    # For the kinds of rounds

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._parts.history.enter(phase, self.number)

    def _new_clock(self) -> Closing:
        settings = self._parts.settings
        return Closing(
            roster=self._roster,
            grace_s=settings.grace_s,
            longest_round_s=settings.longest_round_s,
            now=self._parts.clock.monotonic(),
            needed=self._needed,
        )

    async def _wait_for_change(self, deadline: float | None) -> None:
        """Return when something changes from now on, or at ``deadline``."""
        now = self._parts.clock.monotonic()
        await self._parts.changes.wait(None if deadline is None else deadline - now)

    # Inside

    async def _end_contributing(self, contributing: "asyncio.Task[None]") -> None:
        """Let a training end in good order; whatever comes after it is no longer needed."""
        if self._training:
            self._parts.worker.finish_training()
        while self._training:
            await self._wait_for_change(None)
        contributing.cancel()

    async def _train(self, training: Awaitable[Trained]) -> Trained:
        self._enter(Phase.TRAINING)
        self._training = True
        try:
            return await training
        finally:
            self._training = False
            self._parts.changes.notify()

    async def _decide(self) -> Certificate:
        """Watch, close and agree, until there is a certificate.

        Raises :class:`TransportError` when nothing can be decided here any more.
        """
        while self._agreement.state is not AgreementState.FAILED:
            now = self._parts.clock.monotonic()
            self._observe(now)
            certificate = self._pump(now)
            if certificate is not None:
                return certificate
            await self._wait_for_change(self._next_moment(now))
        raise TransportError(f"round {self.number} came to no decision in any ballot")

    def _observe(self, now: float) -> None:
        parts = self._parts
        present, expected = self._company.look()
        self._share(present)
        held = self._held
        awaited = self._signers(expected) - self._refused
        self.awaited = awaited - held.keys()
        possible = len(present | held.keys())
        others: frozenset[PeerId] = frozenset()
        if self._needed > 1:  # Those who have closed the round hand on what they hold.
            others = self._asks.held_by_some(self._agreement.listed, len(present & self._roster))
        self._deadlines.update(
            expected=awaited,
            held=frozenset(held),
            now=now,
            elsewhere=others - self._refused,
            lacks_peers=possible < self._needed,
        )
        self._ask_elsewhere(now)
        self._note_who_came(awaited, frozenset(held), now)
        self._agreement.set_newcomers(self._company.newcomers(present - self._refused))
        self._agreement.set_held(frozenset(held.values()), now)
        offenders = parts.evidence.offenders(self.number)
        self._agreement.set_live(present & self._roster, now, offenders)
        if self._training and self._should_hurry(now):
            parts.worker.finish_training()
        if self._deadlines.should_close(now):
            self._enter(Phase.AGREEING)
            self._agreement.close(now)
        self._note_shortage(possible, frozenset(held), now)
        self._agreement.handle_timer(now)

    def _note_who_came(
        self, awaited: frozenset[PeerId], held: frozenset[PeerId], now: float
    ) -> None:
        """Note once, as the round closes, whose part came in time and who was waited for in vain.
        Nobody has waited for those who come later."""
        if self._has_noted:
            return
        late = awaited - held
        if self._agreement.state is AgreementState.OPEN:
            hurries_at = self._agreement.get_timer()
            if not self._deadlines.should_close(now) and (hurries_at is None or now < hurries_at):
                return
        else:
            late = frozenset()  # Most others have closed it: nobody was waited for any longer.
        self._has_noted = True
        self._company.note(in_time=held, late=late)

    @property
    def _to_ask_for(self) -> frozenset[PeerId]:
        """Whose updates this peer may ask others for, as long as it waits for them."""
        return self.awaited if self._agreement.state is AgreementState.OPEN else frozenset()

    def _ask_elsewhere(self, now: float) -> None:
        overtaken = self._parts.blobs.overtaken
        if self._asks.is_due(self._to_ask_for, now, overtaken):
            listed = self._agreement.listed
            for ref, holders in self._asks.look(self._to_ask_for, listed, now, overtaken):
                self._updates.ask_early((ref,), holders)

    def _note_shortage(self, possible: int, held: frozenset[PeerId], now: float) -> None:
        """Tell for what the round waits, once this peer has done its part."""
        had_one, self.shortage = bool(self.shortage), ""
        if self._agreement.state is not AgreementState.OPEN:
            if had_one:
                self._enter(Phase.AGREEING)
            return
        if self._parts.me not in held:
            return
        if possible < self._needed:
            self.shortage = self._parts.lacking(possible, "peers")
        elif len(held) < self._needed and self._deadlines.is_short(now):
            self.shortage = self._parts.lacking(len(held), "updates")
        if self.shortage:
            self._enter(Phase.WAITING)
        elif had_one:
            self._enter(Phase.EXCHANGING)

    def _pump(self, now: float) -> Certificate | None:
        """Send what is due, and act on what the agreement asks for or found."""
        speaker, patience = self._parts.speaker, self._parts.patience
        for envelope in self._agreement.envelopes_to_send():
            speaker.broadcast(Agreement(envelope=envelope))
        if self._agreement.sits_out and not self._has_told:
            self._has_told = True
            _log.warning("no vote in round %d: %s", self.number, self._agreement.sits_out)
        while (event := self._agreement.next_event()) is not None:
            match event:
                case Decided(certificate):
                    return certificate
                case Want(updates, holders):
                    self._updates.ask(updates, holders)
                case WantPromises(digests, leader):
                    request = PromiseRequest(
                        round=self.number, base=self.base.base, digests=digests
                    )
                    speaker.send(leader, request)
                case Foul(signer, reason):
                    self._parts.refusals.add(signer, "agreement", reason)
                case Contradiction():
                    self._note_contradiction(event, now)
                case PromisedInTime(in_time, late):
                    patience.promises.note(self.number, in_time=in_time, late=late)
                case Led(leader, in_time=True):
                    patience.leading.note_contribution(leader)
                case Led(leader):
                    patience.leading.note_absence(leader, self.number)
        return None

    def _note_contradiction(self, found: Contradiction, now: float) -> None:
        """Keep it; and tell its signer: it may be another daemon with the same identity."""
        parts = self._parts
        if not parts.evidence.add(found.signer, self.number, found.first, found.second):
            return
        if found.signer == parts.me:
            _log.error("another daemon votes with this peer's identity: stop one of the two")
            return
        parts.refusals.add(found.signer, "contradiction", f"two votes in round {self.number}")
        for envelope in (found.first, found.second):
            parts.speaker.send(found.signer, Agreement(envelope=envelope))

    async def _obtain(self, certificate: Certificate) -> None:
        """Wait until all decided updates are here, asking those who accepted them."""
        parts = self._parts
        missing = self._updates.lacks(certificate.outcome)
        voters = tuple(parts.speaker.open_agreement(raw).signer for raw in certificate.accepts)
        try:
            async with asyncio.timeout(FETCH_DECIDED_S):
                while missing:
                    self._enter(Phase.FETCHING)
                    self._updates.ask(missing, voters)
                    await self._wait_for_change(parts.clock.monotonic() + ASK_AGAIN_S)
                    missing = self._updates.lacks(certificate.outcome)
        except TimeoutError:
            raise TransportError(
                f"round {self.number} was decided, but nobody gives {len(missing)} of its updates"
            ) from None
