"""Gossip in a ring with attackers, as in benchmarks/learning, on a small network and digits.

Five honest peers, two attackers attached to each.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.learning import attacks
from ml.aggregate.mixing import MAX_SCORE, REACH, Partner, moved, parse_mixing
from ml.task.builtin.digits import load_digits
from ml.update.encoding import Floats

HONEST = 5
ITERATIONS = 250
BATCH_SIZE = 16
PIXELS, HIDDEN, CLASSES = 64, 32, 10
WEIGHT = 0.2
GROUPS, GROUP_SIZE = 8, 8
TEST_SAMPLES, HELD_OUT = 397, 64

Labels = NDArray[np.int64]
Attack = Callable[[Floats, int], Floats]


def forward(model: Floats, inputs: Floats) -> tuple[Floats, Floats]:
    """Hidden activations and probabilities of a network without biases."""
    first, second = split(model)
    hidden = np.maximum(inputs @ first, 0)
    logits = hidden @ second
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return hidden, powers / powers.sum(axis=1, keepdims=True)


def gradient(model: Floats, inputs: Floats, labels: Labels) -> Floats:
    """Of the cross entropy."""
    _, second = split(model)
    hidden, errors = forward(model, inputs)
    errors[np.arange(len(labels)), labels] -= 1
    errors /= len(labels)
    back = (errors @ second.T) * (hidden > 0)
    return np.concatenate([(inputs.T @ back).ravel(), (hidden.T @ errors).ravel()])


def split(model: Floats) -> tuple[Floats, Floats]:
    cut = PIXELS * HIDDEN
    return model[:cut].reshape(PIXELS, HIDDEN), model[cut:].reshape(HIDDEN, CLASSES)


def accuracy(model: Floats, inputs: Floats, labels: Labels) -> float:
    return float((forward(model, inputs)[1].argmax(axis=1) == labels).mean())


@dataclass
class OwnTrials:
    """Of one peer: what it holds out, and its trust from one iteration to the next."""

    inputs: Floats
    labels: Labels
    random: np.random.Generator
    stack: Floats = field(default_factory=lambda: np.zeros((1, 1), np.float32))
    base: Floats = field(default_factory=lambda: np.zeros(1, np.float32))
    trust: dict[str, float] = field(default_factory=dict)

    def begin(self, stack: Floats, base: Floats) -> None:
        self.stack, self.base = stack, base
        self.chosen = self.random.permutation(len(self.labels))[: GROUPS * GROUP_SIZE]

    def moved(self) -> float:
        return float(np.linalg.norm(self.stack[0] - self.base))

    def losses(self, row: int, share: float) -> NDArray[np.float64]:
        return self._losses(moved(self.stack[[0, row]], [share]))

    def base_losses(self) -> NDArray[np.float64]:
        return self._losses(self.base)

    def _losses(self, model: Floats) -> NDArray[np.float64]:
        _, found = forward(model, self.inputs[self.chosen])
        right = found[np.arange(self.chosen.size), self.labels[self.chosen]]
        with np.errstate(divide="ignore"):
            losses = -np.log(right.astype(np.float64)).reshape(GROUPS, GROUP_SIZE)
        means: NDArray[np.float64] = losses.mean(axis=1)
        return means


@dataclass(frozen=True)
class Outcome:
    accuracy: float
    distance: float


def run_ring(rule: str | None, attack: Attack | None) -> Outcome:
    """Mean accuracy of the honest, and their mean distance; ``rule`` None: all alone."""
    random = np.random.default_rng(1)
    all_pixels, all_labels = load_digits()
    order = random.permutation(len(all_labels))
    pixels: Floats = (all_pixels[order] / 16).astype(np.float32)
    labels: Labels = all_labels[order].astype(np.int64)
    test = pixels[:TEST_SAMPLES], labels[:TEST_SAMPLES]
    shards = [
        (pixels[TEST_SAMPLES + index :: HONEST], labels[TEST_SAMPLES + index :: HONEST])
        for index in range(HONEST)
    ]
    trials = [OwnTrials(x[:HELD_OUT], y[:HELD_OUT], random) for x, y in shards]
    mixing = parse_mixing(rule) if rule else None
    first = random.standard_normal(HIDDEN * (PIXELS + CLASSES)).astype(np.float32) / 6
    models: Floats = np.repeat(first[np.newaxis], HONEST, axis=0)
    velocity = np.zeros_like(models)
    for _ in range(ITERATIONS):
        for index, (inputs, targets) in enumerate(shards):
            chosen = random.integers(HELD_OUT, len(targets), BATCH_SIZE)
            step = gradient(models[index], inputs[chosen], targets[chosen])
            velocity[index] = 0.9 * velocity[index] + step
        bases = models
        models = (models - np.float32(0.05) * velocity).astype(np.float32, copy=False)
        if mixing is not None:
            following = []
            for index in range(HONEST):
                stack: Floats = honest_around(models, index)
                if attack is not None:
                    stack = np.stack([*stack, *[attack(models, index)] * 2])
                partners = [Partner(f"{row}", WEIGHT) for row in range(1, len(stack))]
                trials[index].begin(stack, bases[index])
                plan = mixing.plan(partners, functools.partial(blocks, stack), trials[index])
                following.append(plan.parameters(stack))
            models = np.stack(following)
        if np.abs(models).max() > 1e6:
            return Outcome(0.0, math.inf)
    pairs = [np.linalg.norm(models[i] - models[j]) for i in range(HONEST) for j in range(i)]
    found = [accuracy(model, *test) for model in models]
    return Outcome(float(np.mean(found)), float(np.mean(pairs)))


def blocks(stack: Floats) -> Iterator[Floats]:
    """All numbers in one block."""
    yield stack


def honest_around(models: Floats, index: int) -> Floats:
    return models[[index, (index + 1) % HONEST, index - 1]]


ATTACKS: dict[str, Attack] = {
    "alie": lambda models, i: attacks.alie(honest_around(models, i), 10),
    "ipm": lambda models, i: attacks.inner_product_manipulation(honest_around(models, i), 1),
    "dissensus": lambda models, i: attacks.dissensus(
        models[i], honest_around(models, i)[1:], 1.5, 2
    ),
}


@pytest.fixture(scope="module")
def alone() -> Outcome:
    return run_ring(None, None)


def test_without_attackers_trials_do_no_harm(alone: Outcome) -> None:
    tried, averaged = run_ring("trial", None), run_ring("mean", None)
    assert tried.accuracy > averaged.accuracy - 0.01
    assert tried.distance < 0.1 * alone.distance


@pytest.mark.parametrize("name", ATTACKS)
def test_trials_bear_attackers_that_are_half_of_the_neighbours(name: str, alone: Outcome) -> None:
    tried = run_ring("trial", ATTACKS[name])
    assert tried.accuracy > alone.accuracy - 0.01
    assert tried.distance < 0.1 * alone.distance


@pytest.mark.parametrize("name", ATTACKS)
def test_mean_does_not_bear_them(name: str, alone: Outcome) -> None:
    averaged = run_ring("mean", ATTACKS[name])
    assert averaged.accuracy < 0.6 or averaged.distance > alone.distance


@dataclass
class FixedTrials:
    """Whoever is in ``helpers`` lowers the loss, everyone else raises it."""

    helpers: frozenset[int]
    movement: float = 1.0
    trust: dict[str, float] = field(default_factory=dict)

    def moved(self) -> float:
        return self.movement

    def base_losses(self) -> NDArray[np.float64]:
        return self.losses(0, 0.0)

    def losses(self, row: int, share: float) -> NDArray[np.float64]:
        change = 0.0 if row == 0 else (-0.1 if row in self.helpers else 0.1)
        return np.linspace(1.0, 2.0, GROUPS) + change


def rows(count: int, scale: float = 0.1) -> Floats:
    random = np.random.default_rng(3)
    return (1 + scale * random.standard_normal((count, 50))).astype(np.float32)


def mix(stack: Floats, trials: FixedTrials, names: str = "abcdefgh") -> Floats:
    partners = [Partner(name, WEIGHT) for name in names[: len(stack) - 1]]
    return (
        parse_mixing("trial")
        .plan(partners, functools.partial(blocks, stack), trials)
        .parameters(stack)
    )


def test_way_to_those_who_help_is_the_formula() -> None:
    stack = rows(5)
    ways = stack[1:] - stack[0]
    distances = np.linalg.norm(ways, axis=1)
    movement = float(distances[0]) / REACH  # so that the others are clipped, or just not
    factors = WEIGHT * np.minimum(1, distances[0] / distances)
    expected = stack[0] + factors[0] * ways[0] + factors[2] * ways[2]
    found = mix(stack, FixedTrials(frozenset({1, 3}), movement))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(("cost", "is_taken"), [(-1.0, True), (0.9, True), (1.1, False)])
def test_move_may_cost_its_share_of_what_the_round_has_won(cost: float, is_taken: bool) -> None:
    class Costly(FixedTrials):
        def base_losses(self) -> NDArray[np.float64]:
            return self.losses(0, 0.0) + 1

        def losses(self, row: int, share: float) -> NDArray[np.float64]:
            return np.linspace(1.0, 2.0, GROUPS) + cost * share

    stack = rows(2)
    trials = Costly(frozenset())
    found = mix(stack, trials)
    assert np.array_equal(found, stack[0]) == (not is_taken)
    assert (trials.trust["a"] > 0) == is_taken


def test_order_of_the_neighbours_does_not_matter() -> None:
    stack = rows(5)
    there, back = FixedTrials(frozenset({1, 2})), FixedTrials(frozenset({3, 4}))
    turned = np.concatenate([stack[:1], stack[:0:-1]])
    np.testing.assert_allclose(mix(stack, there, "abcd"), mix(turned, back, "dcba"), rtol=1e-6)
    assert there.trust == back.trust


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**10])
def test_larger_numbers_are_clipped_alike(scale: float) -> None:
    stack = rows(4)
    helpers = frozenset({1, 2, 3})
    scaled = mix(np.float32(scale) * stack, FixedTrials(helpers, 0.1 * scale))
    np.testing.assert_allclose(scaled, scale * mix(stack, FixedTrials(helpers, 0.1)), rtol=1e-6)


def test_neighbour_that_is_identical_changes_nothing() -> None:
    stack = np.repeat(rows(1), 2, axis=0)
    for helpers in (frozenset[int](), frozenset({1})):
        assert np.array_equal(mix(stack, FixedTrials(helpers)), stack[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_does_not_come_in(value: float) -> None:
    stack = rows(3)
    stack[2, 7] = value

    class Judging(FixedTrials):
        def losses(self, row: int, share: float) -> NDArray[np.float64]:
            with np.errstate(invalid="ignore"):
                place = moved(stack[[0, row]], [share])
            return super().losses(row, share) + float(place.sum())

    with np.errstate(invalid="ignore"):
        assert np.isfinite(mix(stack, Judging(frozenset({1, 2})))).all()


@pytest.mark.parametrize("attack", [1e9, -1e9, 0.0])
def test_attackers_that_all_look_helpful_move_a_peer_by_a_bound(attack: float) -> None:
    stack = rows(5)
    stack[1:] = attack
    way = mix(stack, FixedTrials(frozenset({1, 2, 3, 4}), 0.5)) - stack[0]
    assert np.linalg.norm(way) <= 4 * WEIGHT * REACH * 0.5 * 1.001


def test_who_was_harmful_is_left_out_until_it_has_helped_for_long() -> None:
    stack = rows(2)
    trials = FixedTrials(frozenset())
    for _ in range(10):
        assert np.array_equal(mix(stack, trials), stack[0])
    trials.helpers = frozenset({1})
    rounds = 0
    while np.array_equal(mix(stack, trials), stack[0]):
        rounds += 1
    assert 5 <= rounds <= 20
    assert 0 < trials.trust["a"] < MAX_SCORE
    trials.helpers = frozenset()
    assert np.array_equal(mix(stack, trials), stack[0])
