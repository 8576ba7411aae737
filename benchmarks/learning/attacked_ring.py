"""Five honest peers in a ring, two attackers attached to each (arXiv 2202.01545, section 6).

Models are rows of one array; the rules are those of gossip (ml/aggregate/mixing.py), with the
weights that peers use (protocol/topology.py).
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.learning import attacks
from benchmarks.learning.mnist_shards import MnistShards
from ml.aggregate.mixing import TRIAL, Partner, moved, parse_mixing
from ml.task.samples import Samples
from ml.task.seeds import derive_seed, permutation
from ml.training.held_out import GROUPS, TRIED_SAMPLES, hold_out
from ml.training.train import evaluate
from ml.update.encoding import Floats
from p2pd.what_travels import tensors_of
from protocol.topology import metropolis_weights

HONEST = 5
ATTACKERS_EACH = 2
PEERS = HONEST * (1 + ATTACKERS_EACH)
ITERATIONS = 900
LEARNING_RATE = 0.01
MOMENTUM = 0.9
BATCH_SIZE = 32
CURVE_EVERY = 100
CURVE_SAMPLES = 1000
ATTACKERS_BATCH_SIZE = 128

Tried = tuple[Any, Any, int]
"""Inputs, targets, and how many they are."""
Attack = Callable[["Ring", int], Floats]
"""What the attackers of an honest peer send it."""


@dataclass(frozen=True, slots=True)
class RingResult:
    """How it ended. Accuracies from 0 to 1; a model that is no numbers any more has its luck."""

    accuracy: float
    worst_accuracy: float
    distance: float
    """Mean Euclidean distance of the honest models to each other."""
    curve: list[tuple[float, float]]
    """Mean accuracy on the first test samples, by iteration."""


class Ring:
    """The honest peers: models, momentum, data."""

    def __init__(self, data: MnistShards, *, holds_out: bool) -> None:
        self._data = data
        self._task = data.task
        self._model: nn.Module = self._task.make_model(data.seed)
        self._tensors = list(tensors_of(self._model).values())
        first = np.concatenate([one.detach().numpy().ravel() for one in self._tensors])
        self.models: Floats = np.repeat(first[np.newaxis], HONEST, axis=0)
        self._velocity = np.zeros_like(self.models)
        self.random = np.random.default_rng(data.seed)
        self._shards = data.train[:HONEST]
        self._tried = [samples.head(0) for samples in self._shards]
        if holds_out:
            halves = [hold_out(samples, data.seed) for samples in self._shards]
            self._shards = [trained for trained, _ in halves]
            self._tried = [tried for _, tried in halves]

    def step(self, iteration: int) -> None:
        """SGD with momentum, once for each."""
        for index, samples in enumerate(self._shards):
            random = np.random.default_rng(derive_seed(self._data.seed, index, iteration))
            chosen = random.integers(0, len(samples), BATCH_SIZE)
            gradient = self._gradient(index, samples.take(chosen))
            self._velocity[index] = np.float32(MOMENTUM) * self._velocity[index] + gradient
        self.models -= np.float32(LEARNING_RATE) * self._velocity

    def attackers_gradient(self, index: int) -> Floats:
        """At an honest peer's model, on a large batch of what the attackers have."""
        samples = self._data.train[HONEST + index]
        return self._gradient(
            index, samples.take(self.random.integers(0, len(samples), ATTACKERS_BATCH_SIZE))
        )

    def tried(self, index: int, iteration: int) -> Tried:
        """The samples on which a peer tries its neighbours' models this time."""
        samples = self._tried[index]
        order = permutation(len(samples), self._data.seed, "trial", iteration)[:TRIED_SAMPLES]
        return next(samples.take(order).batches(TRIED_SAMPLES))

    def losses(self, model: Floats, batch: Tried) -> NDArray[np.float64]:
        """Of ``model``, for each of some groups of samples."""
        self._load(model)
        self._model.eval()
        inputs, targets, count = batch
        with torch.no_grad():
            outputs = self._task.outputs(self._model, inputs)
            groups = np.array_split(np.arange(count), GROUPS)
            return np.array([float(self._task.loss(outputs[one], targets[one])) for one in groups])

    def accuracies(self, samples: Samples) -> list[float]:
        """Of each."""
        found = []
        for model in self.models:
            self._load(model)
            found.append(evaluate(self._model, self._task, samples).metrics["accuracy"])
        return found

    def distance(self) -> float:
        """The mean of all pairs; infinity where a model is no numbers any more."""
        if not np.isfinite(self.models).all():
            return math.inf
        wide = self.models.astype(np.float64)
        pairs = [float(np.linalg.norm(wide[i] - wide[j])) for i in range(HONEST) for j in range(i)]
        return sum(pairs) / len(pairs)

    def _gradient(self, index: int, samples: Samples) -> Floats:
        self._load(self.models[index])
        self._model.train()
        self._model.zero_grad()
        inputs, targets, _ = next(samples.batches(len(samples)))
        loss = self._task.loss(self._task.outputs(self._model, inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return np.concatenate([_gradient_of(one) for one in self._tensors])

    def _load(self, model: Floats) -> None:
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(torch.from_numpy(model), self._tensors)


def _gradient_of(tensor: torch.Tensor) -> Floats:
    assert tensor.grad is not None
    gradient: Floats = tensor.grad.numpy().ravel()
    return gradient


@dataclass(slots=True)
class RowTrials:
    """One peer's :class:`ml.aggregate.mixing.Trials` of one iteration."""

    ring: Ring
    index: int
    iteration: int
    base: Floats
    stack: Floats
    trust: dict[str, float] = field(default_factory=dict)

    def moved(self) -> float:
        """How far the step went."""
        return float(np.linalg.norm((self.stack[0] - self.base).astype(np.float64)))

    def losses(self, row: int, share: float) -> NDArray[np.float64]:
        """Of the own model moved by ``share`` of the way to ``row``."""
        return self._losses(moved(self.stack[[0, row]], [share]))

    def base_losses(self) -> NDArray[np.float64]:
        """Of the model before the step."""
        return self._losses(self.base)

    def _losses(self, model: Floats) -> NDArray[np.float64]:
        return self.ring.losses(model, self.ring.tried(self.index, self.iteration))


ATTACKS: dict[str, Attack] = {
    "ALIE, z 10": lambda ring, i: attacks.alie(_neighbourhood(ring, i), 10),
    "IPM, 0.1": lambda ring, i: attacks.inner_product_manipulation(_neighbourhood(ring, i), 0.1),
    "dissensus, 1.5": lambda ring, i: _dissensus(ring, i, 1.5),
}
"""As strong as in the paper's experiment."""

VARIANTS: dict[str, Attack] = {
    "ALIE, z 1": lambda ring, i: attacks.alie(_neighbourhood(ring, i), 1),
    "ALIE, z 3": lambda ring, i: attacks.alie(_neighbourhood(ring, i), 3),
    "IPM, 1": lambda ring, i: attacks.inner_product_manipulation(_neighbourhood(ring, i), 1),
    "dissensus, 0.7": lambda ring, i: _dissensus(ring, i, 0.7),
    "dissensus, 5": lambda ring, i: _dissensus(ring, i, 5),
    "nearly the own model": lambda ring, i: attacks.nearby(ring.models[i], ring.random),
    "dissensus, 1.5, disguised": lambda ring, i: attacks.disguised_dissensus(
        ring.models[i],
        ring.models[_honest_neighbours(i)],
        1.5,
        ATTACKERS_EACH,
        ring.attackers_gradient(i),
        0.5,
    ),
}
"""Weaker, stronger, and made for rules that judge by distance or by loss."""


def run_ring(data: MnistShards, rule: str | None, attack: Attack | None) -> RingResult:
    """``rule``: an aggregation of gossip; None: every peer stays alone.

    Without an attack the attackers are not there.
    """
    ring = Ring(data, holds_out=rule == TRIAL)
    mixing = parse_mixing(rule) if rule else None
    partners = [_partners(index, attacked=attack is not None) for index in range(HONEST)]
    trust: list[dict[str, float]] = [{} for _ in range(HONEST)]
    curve = []
    for iteration in range(1, ITERATIONS + 1):
        bases = ring.models.copy()
        ring.step(iteration)
        if mixing is not None:
            following = []
            for index in range(HONEST):
                stack = _stack(ring, index, attack)
                trials = RowTrials(ring, index, iteration, bases[index], stack, trust[index])
                plan = mixing.plan(partners[index], functools.partial(_blocks, stack), trials)
                following.append(plan.parameters(stack))
            ring.models = np.stack(following)
        if not np.isfinite(ring.models).all():
            break
        if iteration % CURVE_EVERY == 0:
            found = ring.accuracies(data.test.head(CURVE_SAMPLES))
            curve.append((float(iteration), sum(found) / HONEST))
    accuracies = ring.accuracies(data.test)
    return RingResult(sum(accuracies) / HONEST, min(accuracies), ring.distance(), curve)


def _blocks(stack: Floats) -> Iterator[Floats]:
    """All numbers in one block."""
    yield stack


def _honest_neighbours(index: int) -> list[int]:
    return [(index + 1) % HONEST, (index - 1) % HONEST]


def _neighbourhood(ring: Ring, index: int) -> Floats:
    return ring.models[[index, *_honest_neighbours(index)]]


def _dissensus(ring: Ring, index: int, factor: float) -> Floats:
    others = ring.models[_honest_neighbours(index)]
    return attacks.dissensus(ring.models[index], others, factor, ATTACKERS_EACH)


def _stack(ring: Ring, index: int, attack: Attack | None) -> Floats:
    """The peer's model, and what it gets from its neighbours in the order of its partners."""
    rows: list[Floats] = [ring.models[index], *ring.models[sorted(_honest_neighbours(index))]]
    if attack is not None:
        rows += [attack(ring, index)] * ATTACKERS_EACH
    return np.stack(rows)


def _partners(index: int, *, attacked: bool) -> Sequence[Partner]:
    """Of one honest peer, with the weights that all peers would work out."""
    members = [f"{number:02}" for number in range(PEERS if attacked else HONEST)]
    edges = [(one, (one + 1) % HONEST) for one in range(HONEST)]
    if attacked:
        edges += [(number % HONEST, number) for number in range(HONEST, PEERS)]
    graph = {
        member: frozenset(members[one + two - place] for one, two in edges if place in (one, two))
        for place, member in enumerate(members)
    }
    weights = metropolis_weights(graph, members[index])
    return [Partner(peer, weight) for peer, weight in weights.items()]
