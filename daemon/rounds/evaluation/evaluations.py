"""What is known of how good states are, and whose word that is.

The swarm's setting says who evaluates. With ``each``, this peer has every state that is due
evaluated beside its next training. With ``turn``, one peer does (turns.py), signs what it found and
sends it to all. The others show that as its claim.

Invariants:

- No round waits for an evaluation. One that does not come is missing, and that is all.
- A claim is taken from its signer's own session, and of the one whose turn it was alone. Nothing is
  decided by it.
- At most :data:`KEPT_ROUNDS` rounds wait for a claim, and :data:`MAX_EARLY` claims for a round.
"""

import logging
import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from daemon.rounds.evaluation.turns import evaluator_of, is_due
from daemon.rounds.parts import Parts
from ml.opening import StateReady
from p2pd.metrics import finite
from protocol.envelope import Domain
from protocol.errors import VerificationError
from protocol.identity import PeerId, peer_id_of
from protocol.metric import MetricValue
from protocol.peers.evaluation import MAX_TEXT_CHARACTERS, Claim, Evaluation, Measured
from protocol.peers.peer_messages import EvaluationOffer
from protocol.statements.swarm import UNLIMITED

KEPT_ROUNDS = 16
MAX_EARLY = 256
AHEAD_ROUNDS = 2
"""A claim of a round so far ahead waits for this peer."""
AWAITED_ROUNDS = 2
"""A claim is shown as still to come until so many further rounds are over,"""
AWAITED_S = 600.0
"""and for so long at most."""
NEAR_ROUNDS = 2
"""In gossip, whoever is so close may be the one whose turn it is."""

_log = logging.getLogger("p2pd.training")


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a round's state is."""

    round: int
    loss: float | None
    metrics: tuple[MetricValue, ...]
    by: PeerId | None = None
    """Who says so; None: this peer measured it."""

    @property
    def text(self) -> str:
        """For a log."""
        if self.metrics:
            return str(self.metrics[0])
        return "not evaluated" if self.loss is None else f"loss {self.loss:.4f}"


@dataclass(slots=True)
class _Turn:
    """A round whose state another is to evaluate."""

    root: bytes
    candidates: frozenset[PeerId]
    awaited_until: float
    """On the monotonic clock."""


class Evaluations:
    """Has states evaluated where this peer should, and takes what others say of them.

    Example (daemon/rounds/training.py)::

        self._evaluations.round_ended(state, round_.averaged)
    """

    def __init__(self, parts: Parts) -> None:
        self.latest: Quality | None = None
        """Of the last state of which something is known."""
        self._parts = parts
        self._turns: OrderedDict[int, _Turn] = OrderedDict()
        self._own_turns: deque[int] = deque(maxlen=KEPT_ROUNDS)
        """The rounds that this peer is to tell the others of, and has not yet."""
        self._early: OrderedDict[PeerId, Claim] = OrderedDict()

    def round_ended(self, state: StateReady, updates: int) -> None:
        """A round led this peer to ``state``, which averages so many updates."""
        comes = self._begin(state)
        self._parts.history.end_round(replace(state, is_evaluating=comes), updates)
        self._look_again(state.round - AWAITED_ROUNDS)
        ready = [peer for peer, claim in self._early.items() if claim.round <= state.round]
        for peer in ready:
            self._take(self._early.pop(peer))

    def state_taken(self, state: StateReady) -> None:
        """This peer took ``state`` from others. It is evaluated here only if no round follows:
        whoever comes anew trains at once."""
        self._turns.clear()
        self._own_turns.clear()
        rounds = self._parts.settings.rounds
        if rounds != UNLIMITED and state.round == rounds:
            self._begin(state)

    def look_again(self) -> None:
        """To be called every now and then: some claims may come no more."""
        self._look_again(-1)

    def judge(self, state: StateReady) -> None:
        """See :class:`daemon.worker.trainer.Judge`."""
        _log.info("round %d: %s", state.round, state.quality)
        self._judge(state.round, state.state.root, finite(state.loss), state.metrics)

    def judge_round(
        self, round_number: int, loss: float | None, metrics: tuple[MetricValue, ...]
    ) -> None:
        """A user's own script found a round's state to be like that, unasked."""
        root = self._parts.lineage.base_of(round_number)
        if root is None:
            self._parts.history.judge(round_number, loss, metrics)
        else:
            self._judge(round_number, root, loss, metrics)

    def receive(self, peer: PeerId, raw: bytes) -> None:
        """``peer`` sends a signed evaluation, not verified yet. Raises
        :class:`RemoteProtocolError`."""
        parts = self._parts
        if parts.settings.evaluate != "turn":
            raise VerificationError(
                f"evaluation in a swarm whose setting is {parts.settings.evaluate!r}"
            )
        claim = parts.speaker.open_evaluation(raw)
        if claim.signer != peer:
            raise VerificationError(f"evaluation that {claim.signer} signed")
        ahead = claim.round - parts.lineage.position.round
        if ahead <= 0:
            self._take(claim)
        elif ahead <= AHEAD_ROUNDS:
            self._early[peer] = claim
            if len(self._early) > MAX_EARLY:
                self._early.popitem(last=False)

    # Inside

    def _begin(self, state: StateReady) -> bool:
        """Whether it will be known how good ``state`` is."""
        parts = self._parts
        if not is_due(parts.settings, state.round):
            return False
        if parts.settings.evaluate == "each":
            parts.worker.evaluate(state, self)
            return True
        candidates = self._candidates(state.round)
        chosen = self._chosen(state.round, candidates)
        if chosen == parts.me:
            self._own_turns.append(state.round)
            parts.worker.evaluate(state, self)
        elif chosen is not None:
            until = parts.clock.monotonic() + AWAITED_S
            self._turns[state.round] = _Turn(state.state.root, candidates, until)
            if len(self._turns) > KEPT_ROUNDS:
                self._turns.popitem(last=False)
        return chosen is not None

    def _candidates(self, round_number: int) -> frozenset[PeerId]:
        """Who contributed to the state that this peer holds; in gossip, who is about as far."""
        parts = self._parts
        if parts.settings.exchange == "gossip":
            near = {
                peer
                for peer, standing in parts.standings.live().items()
                if standing.ready and abs(standing.round - round_number) <= NEAR_ROUNDS
            }
            return frozenset({*near, parts.me})
        certificate = parts.lineage.certificate
        updates = () if certificate is None else certificate.outcome.updates
        return frozenset(peer_id_of(ref.signer) for ref in updates)

    def _chosen(self, round_number: int, candidates: frozenset[PeerId]) -> PeerId | None:
        return evaluator_of(self._parts.place.swarm.swarm_id, round_number, candidates)

    def _take(self, claim: Claim) -> None:
        """Believe its signer that it says so, if it was its turn."""
        turn = self._turns.get(claim.round)
        if turn is None:
            return  # it came too late, or is of a round before this peer's time
        gossips = self._parts.settings.exchange == "gossip"
        if claim.base != turn.root and not gossips:
            return  # of another line, which may be as honest
        # In gossip each holds a state of its own and sees others near it.
        candidates = turn.candidates | {claim.signer} if gossips else turn.candidates
        # And in a large swarm each knows others: whoever it hears of may have its turn.
        is_turn = self._chosen(claim.round, candidates) == claim.signer
        if not is_turn and not self._parts.view.is_partial:
            reason = f"evaluation of round {claim.round}, which was another's turn"
            self._parts.refusals.add(claim.signer, "evaluation", reason)
            return
        del self._turns[claim.round]
        quality = Quality(claim.round, claim.loss, claim.metrics, claim.signer)
        self._note(quality)
        _log.info("round %d: %s, as %s says", quality.round, quality.text, claim.signer)

    def _judge(
        self,
        round_number: int,
        root: bytes,
        loss: float | None,
        metrics: tuple[MetricValue, ...],
    ) -> None:
        self._turns.pop(round_number, None)
        self._note(Quality(round_number, loss, metrics))
        is_known = loss is not None or bool(metrics)
        if is_known and round_number in self._own_turns:
            self._own_turns.remove(round_number)
            self._tell(round_number, root, loss, metrics)

    def _tell(
        self, round_number: int, root: bytes, loss: float | None, metrics: Sequence[MetricValue]
    ) -> None:
        measured = tuple(
            Measured(one.name, one.value, one.better, one.format)
            for one in metrics
            if len(one.text) <= MAX_TEXT_CHARACTERS
        )
        found = Evaluation(round=round_number, base=root, loss=loss, metrics=measured)
        speaker = self._parts.speaker
        speaker.broadcast(EvaluationOffer(evaluation=speaker.seal(Domain.EVALUATION, found)))

    def _note(self, quality: Quality) -> None:
        if self.latest is None or quality.round >= self.latest.round:
            self.latest = quality
        self._parts.history.judge(quality.round, quality.loss, quality.metrics, quality.by or "")

    def _look_again(self, last: int) -> None:
        """Show claims as missing of rounds up to ``last``, and of those that take too long."""
        now = self._parts.clock.monotonic()
        for round_number, turn in self._turns.items():
            if (round_number <= last or now >= turn.awaited_until) and turn.awaited_until > 0:
                turn.awaited_until = -math.inf
                self._parts.history.judge(round_number, None, ())
