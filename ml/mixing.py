"""Gossip: how a peer moves from its own parameters towards those of its neighbours.

Row 0 of every stack is the peer itself. As in ml/aggregate.py, float32 and in a fixed order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ml.aggregate import (
    Aggregation,
    Median,
    Plan,
    Stacks,
    TrimmedMean,
    median,
    parse_aggregation,
    squared_norms,
)
from ml.encoding import Floats
from protocol.errors import ConfigError


class Mixing(Protocol):
    """A rule."""

    def plan(self, weights: Sequence[float], stacks: Stacks) -> Plan:
        """``weights``: the neighbours', in the order of the rows after the first."""


def parse_mixing(text: str) -> Mixing:
    """From the spelling of the aggregation in settings. Raises :class:`ConfigError`."""
    rule = parse_aggregation(text, max_sample_weight=1)
    if text == "mean":
        return WeightedMixing()
    if text == "centered_clip":
        return ClippedMixing()
    if isinstance(rule, Median | TrimmedMean):
        return UnweightedMixing(rule)
    raise ConfigError(
        f"aggregation {text!r} does not go with gossip: take mean, median, trimmed_mean or"
        " centered_clip"
    )


@dataclass(frozen=True, slots=True)
class WeightedMixing:
    """``x + sum of w_j (x_j - x)`` (D-PSGD, arXiv 1705.09056)."""

    def plan(self, weights: Sequence[float], stacks: Stacks) -> Plan:
        """Needs no look at the parameters."""

        def combine(stack: Floats) -> Floats:
            return _moved(stack, [np.float32(weight) for weight in weights])

        return Plan(combine, combine)


@dataclass(frozen=True, slots=True)
class ClippedMixing:
    """The same, with each way clipped (ClippedGossip, arXiv 2202.01545).

    The threshold is the median of the neighbours' distances, the lower one of two, so that it
    follows the honest spread as long as no more than half of the neighbours lie.
    """

    def plan(self, weights: Sequence[float], stacks: Stacks) -> Plan:
        """Measure the distances."""
        squares = np.zeros(len(weights))
        for stack in stacks():
            squares += squared_norms(stack[1:] - stack[0])
        distances = [math.sqrt(square) for square in squares.tolist()]
        threshold = sorted(distances)[(len(distances) - 1) // 2] if distances else 0.0
        factors = [
            np.float32(weight if distance <= threshold else weight * threshold / distance)
            for weight, distance in zip(weights, distances, strict=True)
        ]
        return Plan(lambda stack: _moved(stack, factors), median)


@dataclass(frozen=True, slots=True)
class UnweightedMixing:
    """A coordinate-wise rule over the own parameters and the neighbours', all alike."""

    rule: Aggregation

    def plan(self, weights: Sequence[float], stacks: Stacks) -> Plan:
        """As the rule does."""
        return self.rule.plan([1] * (1 + len(weights)), stacks)


def _moved(stack: Floats, weights: Sequence[np.float32]) -> Floats:
    moved: Floats = stack[0].copy()
    for weight, values in zip(weights, stack[1:], strict=True):
        moved += weight * (values - stack[0])
    return moved
