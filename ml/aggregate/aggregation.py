"""Aggregation: one pseudo-gradient out of those of all contributors.

Invariants: float32, elementwise, in the order of the peer ids, with NumPy on the CPU; where a rule
needs a sum over elements it is added up in a fixed tree of elementwise additions. So equal updates
give equal bits on any machine. Nothing needs more than one block of every update at a time.

The mean trusts everyone. The other rules limit the harm of some attackers. They give all peers the
same weight, since the sample counts that peers claim cannot be checked.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ml.aggregate.needed_updates import needed_by_krum
from ml.update.encoding import Floats
from protocol.errors import ConfigError, WorkerError

Combine = Callable[[Floats], Floats]
"""Makes the aggregated block from one block of all updates, shape (peers, elements)."""

MAX_TIMES_MEDIAN = 10
"""The most that one sample count counts: so many times their median. A peer with more data
than all others together is still heard out less than they are, once they are many; and a peer that
claims any number of samples gains no more than that."""
MAD_TO_DEVIATION = 1.4826
"""The standard deviation of normal numbers, by their median absolute deviation."""
OUTLYING_DEVIATIONS = 3.0
OUTLYING_FRACTION = 0.15
"""Few distances can be close to each other by chance."""

Stacks = Callable[[], Iterator[Floats]]
"""Every block of the parameters in turn, shape (peers, elements); may be gone through again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rule does in one round. Float buffers (running means and the like) are told apart:
    their size says nothing about a peer, so rules that judge peers take the buffers' median.
    """

    parameters: Combine
    buffers: Combine


class Aggregation(Protocol):
    """A rule."""

    def plan(self, sample_counts: Sequence[int], stacks: Stacks) -> Plan:
        """Look at the updates as far as the rule needs it.

        Raises :class:`WorkerError` where there are too few of them.
        """


def parse_aggregation(text: str, max_sample_weight: int) -> Aggregation:
    """Read its spelling in settings: mean, trimmed_mean:FRACTION, median, krum:F, centered_clip.

    Without trial, which is gossip's alone (ml/aggregate/mixing.py). Raises :class:`ConfigError`.

    >>> parse_aggregation("trimmed_mean:0.25", max_sample_weight=1000)
    TrimmedMean(fraction=0.25)
    """
    kind, _, amount = text.partition(":")
    match kind:
        case "mean" if not amount:
            return WeightedMean(max_sample_weight)
        case "median" if not amount:
            return Median()
        case "centered_clip" if not amount:
            return CenteredClipping()
        case "trimmed_mean" if 0 < (fraction := _number(amount or "0.2")) < 0.5:
            return TrimmedMean(fraction)
        case "krum" if amount.isdecimal() and len(amount) < 6:
            return Krum(int(amount))
    raise ConfigError(
        f"aggregation {text!r}: write mean, trimmed_mean:0.2, median, krum:1, centered_clip, or in"
        " gossip trial"
    )


@dataclass(frozen=True, slots=True)
class WeightedMean:
    """Each update weighs as much as the samples behind it, up to a bound: ``max_sample_weight``,
    and :data:`MAX_TIMES_MEDIAN`."""

    max_sample_weight: int

    def plan(self, sample_counts: Sequence[int], stacks: Stacks) -> Plan:
        """Needs no look at the updates."""
        bound = min(self.max_sample_weight, MAX_TIMES_MEDIAN * statistics.median_low(sample_counts))
        bounded = [min(count, bound) for count in sample_counts]
        weights = [np.float32(weight / sum(bounded)) for weight in bounded]

        def combine(stack: Floats) -> Floats:
            total: Floats = weights[0] * stack[0]
            for weight, values in zip(weights[1:], stack[1:], strict=True):
                total += weight * values
            return total

        return Plan(combine, combine)


@dataclass(frozen=True, slots=True)
class TrimmedMean:
    """Coordinate-wise: without the largest and smallest ``fraction`` (Yin et al., 1803.01498)."""

    fraction: float

    def plan(self, sample_counts: Sequence[int], stacks: Stacks) -> Plan:
        """Leave out at least one at each end, where there are three or more."""
        peers = len(sample_counts)
        cut = min(math.ceil(self.fraction * peers - 1e-9), (peers - 1) // 2)

        def combine(stack: Floats) -> Floats:
            return _mean_in_order(_sorted(stack)[cut : peers - cut])

        return Plan(combine, combine)


@dataclass(frozen=True, slots=True)
class Median:
    """Coordinate-wise; the mean of the two in the middle for an even number."""

    def plan(self, sample_counts: Sequence[int], stacks: Stacks) -> Plan:
        """Needs no look at the updates."""
        return Plan(median, median)


@dataclass(frozen=True, slots=True)
class Krum:
    """The one update nearest to its nearest others (Blanchard et al., NeurIPS 2017)."""

    attackers: int

    @property
    def needed_updates(self) -> int:
        """The rule promises nothing with fewer updates."""
        return needed_by_krum(self.attackers)

    def plan(self, sample_counts: Sequence[int], stacks: Stacks) -> Plan:
        """Score each update by the squared distances to its n - f - 2 nearest."""
        peers = len(sample_counts)
        if peers < self.needed_updates:
            raise WorkerError(
                f"aggregation krum:{self.attackers} needs {self.needed_updates} updates, and there"
                f" are {peers}"
            )
        distances = np.zeros((peers, peers))
        for stack in stacks():
            for i in range(peers):
                for j in range(i):
                    distances[i, j] += squared_norms(stack[i : i + 1] - stack[j])[0]
        distances += distances.T
        near = np.sort(distances, axis=1)[:, 1 : peers - self.attackers - 1]
        scores = [math.fsum(row) for row in near.tolist()]
        best = scores.index(min(scores))
        return Plan(lambda stack: stack[best].copy(), median)


@dataclass(frozen=True, slots=True)
class CenteredClipping:
    """Clip each update's way from the center (Karimireddy et al., arXiv 2012.10333).

    The center is the coordinate-wise median; the threshold is the median of the distances to it, so
    that it follows the honest spread from round to round. Updates of peers that train alike are at
    nearly the same distance, since that is a sum of many small differences: who is further off than
    the distances themselves spread (their median absolute deviation) is left out, as clipped
    updates that all lead the same way still add up.
    """

    def plan(self, sample_counts: Sequence[int], stacks: Stacks) -> Plan:
        """Measure the distances."""
        squares = np.zeros(len(sample_counts))
        for stack in stacks():
            squares += squared_norms(stack - median(stack))
        distances = np.sqrt(squares)
        threshold = float(np.median(distances))
        spread = MAD_TO_DEVIATION * float(np.median(np.abs(distances - threshold)))
        limit = threshold + max(OUTLYING_DEVIATIONS * spread, OUTLYING_FRACTION * threshold)
        factors = {
            row: np.float32(1.0 if distance <= threshold else threshold / distance)
            for row, distance in enumerate(distances.tolist())
            if distance <= limit
        }

        def combine(stack: Floats) -> Floats:
            center = median(stack)
            clipped = np.stack([factor * (stack[row] - center) for row, factor in factors.items()])
            return center + _mean_in_order(clipped)

        return Plan(combine, median)


def median(stack: Floats) -> Floats:
    """The coordinate-wise median of shape (peers, elements)."""
    middle = (len(stack) - 1) // 2
    return _mean_in_order(_sorted(stack)[middle : len(stack) - middle])


def squared_norms(rows: Floats) -> NDArray[np.float64]:
    """The sum of squares of each row, in float64, halving the row until one number is left."""
    squares = rows.astype(np.float64)
    squares *= squares
    while (width := squares.shape[1]) > 1:
        half = (width + 1) // 2
        squares[:, : width - half] += squares[:, half:]
        squares = squares[:, :half]
    sums: NDArray[np.float64] = squares.sum(axis=1)
    return sums


def _sorted(stack: Floats) -> Floats:
    # A sort may leave -0.0 and 0.0 in any order; adding 0.0 makes both 0.0.
    return np.sort(stack + np.float32(0.0), axis=0)


def _mean_in_order(stack: Floats) -> Floats:
    total: Floats = stack[0].copy()
    for values in stack[1:]:
        total += values
    total /= np.float32(len(stack))
    return total


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
