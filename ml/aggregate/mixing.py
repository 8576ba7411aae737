"""Gossip's rules: a peer moves from its own parameters towards those of its neighbours.

Row 0 of every stack is the peer itself. As in ml/aggregate/aggregation.py, float32 and in a fixed
order.

A rule that looks at distances alone cannot bear attackers who are half of a peer's neighbours. They
can be at the distance that it takes for the honest spread, or nearer, or all in one direction. A
trial on this peer's own samples can bear them: :class:`TrialMixing` (docs/learning-attackers.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ml.aggregate.aggregation import (
    Aggregation,
    Median,
    Plan,
    Stacks,
    TrimmedMean,
    median,
    parse_aggregation,
    squared_norms,
)
from ml.update.encoding import Floats
from protocol.errors import ConfigError

TRIAL = "trial"

REACH = 3.0
"""How far off a neighbour counts in full, in lengths of this peer's movement of the round."""
MEMORY = 0.05
"""What the newest trial weighs in the trust in a neighbour: about twenty rounds count."""
HARM = 2.0
"""A trial's result that is bad by so many standard errors counts at once."""
MAX_SCORE = 3.0
PRIOR = 0.1
"""The trust in a neighbour before its first trial: it takes more than bad luck to leave it out."""
KEPT_TRUST = 4096


class Partner(NamedTuple):
    """A neighbour, and what it weighs; the weights of all are at most 1 together."""

    peer_id: str
    weight: float


class Trials(Protocol):
    """What a peer can find out by itself before it moves."""

    @property
    def trust(self) -> dict[str, float]:
        """Trust in neighbours, by peer id; the rule writes into it, for the next rounds."""

    def moved(self) -> float:
        """How far this round's training has moved this peer's parameters (Euclidean)."""

    def losses(self, row: int, share: float) -> NDArray[np.float64]:
        """The losses of this peer's model, moved by ``share`` of the way to row ``row``.

        One for each of some groups of samples that are not trained on, the same in every call.
        """

    def base_losses(self) -> NDArray[np.float64]:
        """The same of the model from which this round's training began."""


class Mixing(Protocol):
    """A rule."""

    def plan(self, partners: Sequence[Partner], stacks: Stacks, trials: Trials) -> Plan:
        """``partners``: in the order of the rows after the first."""


def parse_mixing(text: str) -> Mixing:
    """Read the spelling of the aggregation in settings. Raises :class:`ConfigError`.

    >>> own_and_bobs = np.float32([[0, 0], [4, 8]])
    >>> rule, partners = parse_mixing("mean"), [Partner("bob", weight=0.25)]
    >>> plan = rule.plan(partners, lambda: iter([own_and_bobs]), trials=None)
    >>> plan.parameters(own_and_bobs)
    array([1., 2.], dtype=float32)
    """
    if text == TRIAL:
        return TrialMixing()
    rule = parse_aggregation(text, max_sample_weight=1)
    if text == "mean":
        return WeightedMixing()
    if text == "centered_clip":
        return ClippedMixing()
    if isinstance(rule, Median | TrimmedMean):
        return UnweightedMixing(rule)
    raise ConfigError(
        f"aggregation {text!r} does not go with gossip: take mean, median, trimmed_mean,"
        " centered_clip or trial"
    )


@dataclass(frozen=True, slots=True)
class WeightedMixing:
    """``x + sum of w_j (x_j - x)`` (D-PSGD, arXiv 1705.09056)."""

    def plan(self, partners: Sequence[Partner], stacks: Stacks, trials: Trials) -> Plan:
        """Needs no look at the parameters."""
        shares = [partner.weight for partner in partners]

        def combine(stack: Floats) -> Floats:
            return moved(stack, shares)

        return Plan(combine, combine)


@dataclass(frozen=True, slots=True)
class ClippedMixing:
    """The same, with each way clipped (ClippedGossip, arXiv 2202.01545).

    The threshold is the median of the neighbours' distances, the lower one of two, so that it
    follows the honest spread as long as no more than half of the neighbours lie.
    """

    def plan(self, partners: Sequence[Partner], stacks: Stacks, trials: Trials) -> Plan:
        """Measure the distances."""
        distances = _distances(partners, stacks)
        threshold = sorted(distances)[(len(distances) - 1) // 2] if distances else 0.0
        shares = [
            partner.weight * _clipping(distance, threshold)
            for partner, distance in zip(partners, distances, strict=True)
        ]
        return Plan(lambda stack: moved(stack, shares), median)


@dataclass(frozen=True, slots=True)
class TrialMixing:
    """Each way clipped, and taken only where a trial on samples of one's own says so.

    Clipping: at :data:`REACH` times this peer's movement of the round, which nobody else can
    change and which is alike for peers that train alike (in ClippedGossip, arXiv 2202.01545, the
    threshold is a constant).

    Trial: on samples that are not trained on, a move by a share of the way may cost at most that
    share of what this round's training has won. Where the loss is convex, a model that is no worse
    than the one this round began from meets that; what leads away from the honest, or where they
    would not go, does not, however near it is, and what adds up round by round cannot go further
    than the training makes good. One trial says little, so its result in standard errors goes into
    a running mean, the trust in that neighbour: who is not trusted is left out, and so is who does
    clear harm now. (Trials of gradients: Zeno, arXiv 1805.10032; of models: UBAR, arXiv 2002.08569,
    which asks them to be as good as this peer's.)
    """

    def plan(self, partners: Sequence[Partner], stacks: Stacks, trials: Trials) -> Plan:
        """Try each neighbour by itself."""
        reach = REACH * trials.moved()
        own, base = trials.losses(0, 0.0), trials.base_losses()
        shares = []
        for row, distance in enumerate(_distances(partners, stacks), start=1):
            peer_id, weight = partners[row - 1]
            share = weight * _clipping(distance, reach)
            score = _score((1 - share) * own + share * base, trials.losses(row, share))
            trust = trials.trust.pop(peer_id, PRIOR)
            trust += MEMORY * (score - trust)
            trials.trust[peer_id] = trust
            shares.append(share if trust > 0 and score > -HARM else 0.0)
        while len(trials.trust) > KEPT_TRUST:
            del trials.trust[next(iter(trials.trust))]

        def combine(stack: Floats) -> Floats:
            return moved(stack, shares)

        return Plan(combine, combine)


@dataclass(frozen=True, slots=True)
class UnweightedMixing:
    """A coordinate-wise rule over this peer's parameters and the neighbours', all alike."""

    rule: Aggregation

    def plan(self, partners: Sequence[Partner], stacks: Stacks, trials: Trials) -> Plan:
        """Plan as the rule does."""
        return self.rule.plan([1] * (1 + len(partners)), stacks)


def moved(stack: Floats, shares: Sequence[float]) -> Floats:
    """The first row, moved by a share of the way to each of the others.

    Rows with a share of 0 have no effect, whatever is in them.
    """
    place: Floats = stack[0].copy()
    for share, values in zip(shares, stack[1:], strict=True):
        if share:
            place += np.float32(share) * (values - stack[0])
    return place


def _distances(partners: Sequence[Partner], stacks: Stacks) -> list[float]:
    squares = np.zeros(len(partners))
    for stack in stacks():
        squares += squared_norms(stack[1:] - stack[0])
    return [math.sqrt(square) for square in squares.tolist()]


def _clipping(distance: float, threshold: float) -> float:
    return 1.0 if distance <= threshold else threshold / distance


def _score(bounds: NDArray[np.float64], losses: NDArray[np.float64]) -> float:
    """How many standard errors below their bounds the losses are, within bounds itself."""
    if not (np.isfinite(bounds).all() and np.isfinite(losses).all()):
        return -MAX_SCORE
    below = bounds - losses
    mean = float(below.mean())
    error = float(below.std(ddof=1)) / math.sqrt(below.size)
    if abs(mean) >= MAX_SCORE * error:
        return math.copysign(MAX_SCORE, mean) if mean else 0.0
    return mean / error
