"""Gossip: peers average their parameters with those of their neighbours."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

from ml.aggregate.mixing import Partner, parse_mixing
from ml.averaging.messages import Neighbour
from ml.learner import Learner
from ml.opening import StateReady
from ml.state.manifest import TensorSpec
from ml.state.tensor_file import AnyArray
from ml.state.tensor_store import write_to_disk
from ml.update.codec import UpdateCodec
from ml.update.dense import Float32Encoding
from protocol.errors import ConfigError, WorkerError
from protocol.topology import Topology, metropolis_weights
from tests.ml.conftest import MakeOpening
from tests.ml.running import averager_of, model_of, open_learner, open_three, train

Floats = NDArray[np.float32]


def mixed(rule: str, stack: Floats, weights: list[float]) -> Floats:
    def stacks() -> Iterator[Floats]:
        yield from np.array_split(stack, 3, axis=1)

    partners = [Partner(f"peer {row}", weight) for row, weight in enumerate(weights, start=1)]
    return parse_mixing(rule).plan(partners, stacks, NoTrials()).parameters(stack)


class NoTrials:
    """For the rules that look at parameters only."""

    trust: ClassVar[dict[str, float]] = {}

    def moved(self) -> float:
        raise AssertionError("this rule tries nothing")

    def losses(self, row: int, share: float) -> NDArray[np.float64]:
        raise AssertionError(f"this rule does not try row {row} at {share}")

    def base_losses(self) -> NDArray[np.float64]:
        raise AssertionError("this rule tries nothing")


def parameters(count: int, seed: int = 0) -> Floats:
    random = np.random.default_rng(seed)
    return (1 + 0.1 * random.standard_normal((count, 600))).astype(np.float32)


def run_ring(learners: list[Learner], rounds: int) -> list[StateReady]:
    states: list[StateReady] = []
    count = len(learners)
    for round_number in range(1, rounds + 1):
        updates = [train(learner, round_number) for learner in learners]
        states = [
            learner.mix(
                round_number,
                updates[i].updates[0].path,
                tuple(
                    Neighbour(f"peer {j}", updates[j].updates[0].path, 1 / 3)
                    for j in ((i + 1) % count, (i - 1) % count)
                ),
            )
            for i, learner in enumerate(learners)
        ]
    return states


def test_mean_moves_by_the_weights() -> None:
    stack = parameters(3)
    expected = 0.5 * stack[0] + 0.2 * stack[1] + 0.3 * stack[2]
    np.testing.assert_allclose(mixed("mean", stack, [0.2, 0.3]), expected, rtol=1e-5)


LINE = {one: frozenset(who for who in "abcde" if abs(ord(who) - ord(one)) == 1) for one in "abcde"}


@pytest.mark.parametrize("topology", ["ring", "regular:3", "line"])
def test_peers_come_to_the_mean_of_all_under_metropolis_weights(topology: str) -> None:
    """Also on a line, where those at its ends have fewer partners than the others."""
    members = "abcde"
    stacked = parameters(len(members))
    mean = stacked.mean(0)
    held = dict(zip(members, stacked, strict=True))
    before = np.abs(stacked - mean).max()
    for round_number in range(40):
        graph = (
            LINE if topology == "line" else Topology.parse(topology).graph(members, round_number)
        )
        following = {}
        for member in members:
            weights = metropolis_weights(graph, member)
            stack = np.stack([held[member], *(held[other] for other in weights)])
            following[member] = mixed("mean", stack, list(weights.values()))
        held = following
    after = np.stack(list(held.values()))
    np.testing.assert_allclose(after.mean(0), mean, rtol=1e-5)
    assert np.abs(after - mean).max() < 0.01 * before


def test_without_neighbours_nothing_moves() -> None:
    stack = parameters(1)
    for rule in ("mean", "median", "trimmed_mean", "centered_clip"):
        assert np.array_equal(mixed(rule, stack, []), stack[0])


def test_clipping_bounds_how_far_an_attacker_pulls() -> None:
    stack = parameters(5)
    distances = np.linalg.norm(stack[1:3] - stack[0], axis=1)
    for attack in (1e9, -1e9, -1.0):
        stack[3:] = attack
        way = mixed("centered_clip", stack, [0.2] * 4) - stack[0]
        assert np.linalg.norm(way) <= 0.8 * distances.max() * 1.001


def test_clipping_is_the_formula() -> None:
    stack = parameters(4)
    stack[3] += 5
    weights = np.array([0.1, 0.2, 0.3])
    ways = stack[1:] - stack[0]
    distances = np.linalg.norm(ways, axis=1)
    factors = weights * np.minimum(1, np.sort(distances)[1] / distances)
    np.testing.assert_allclose(
        mixed("centered_clip", stack, weights.tolist()), stack[0] + factors @ ways, rtol=1e-5
    )


def test_parameters_travel_and_are_averaged(make_opening: MakeOpening) -> None:
    learners = open_three(make_opening, exchange="gossip")
    updates = [train(learner, 1) for learner in learners]
    local = [safetensors.torch.load_file(update.updates[0].path) for update in updates]
    assert torch.equal(local[0]["0.weight"], model_of(learners[0]).state_dict()["0.weight"])
    neighbours = tuple(Neighbour(f"peer {i}", updates[i].updates[0].path, 1 / 3) for i in (2, 1))
    state = learners[0].mix(1, updates[0].updates[0].path, neighbours)
    found = safetensors.torch.load_file(state.state.path)
    for name in ("0.weight", "1.running_var"):
        mean = torch.stack([one[name] for one in local]).mean(0)
        torch.testing.assert_close(found[f"model/{name}"], mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [{}, {"compression": "int8"}, {"aggregation": "centered_clip"}, {"aggregation": "trial"}],
)
def test_ring_learns_and_comes_together(
    make_opening: MakeOpening, settings: dict[str, str]
) -> None:
    learners = [
        open_learner(make_opening(f"{i}", shard=(i, 4), exchange="gossip", **settings))
        for i in range(4)
    ]
    states = run_ring(learners, 5)
    assert all(state.leading > 0.95 for state in states)
    weights = [safetensors.torch.load_file(state.state.path)["model/0.weight"] for state in states]
    spread = max(float((one - weights[0]).norm()) for one in weights)
    assert spread < 0.5 * float(weights[0].norm())


def test_trial_leaves_out_who_would_do_harm(make_opening: MakeOpening, tmp_path: Path) -> None:
    learner = open_learner(make_opening(exchange="gossip", aggregation="trial", shard=(0, 3)))
    helper, other = (
        open_learner(make_opening(f"{i}", exchange="gossip", shard=(i, 3))) for i in (1, 2)
    )
    own, good, bad = (train(one, 1).updates[0].path for one in (learner, helper, other))
    codec = UpdateCodec(averager_of(learner)._manifest, Float32Encoding())
    with codec.open(Path(bad)) as update:

        def turned(spec: TensorSpec, start: int, stop: int) -> AnyArray:
            values = update.read(spec, start, stop)
            return -3 * values if spec.kind == "parameter" else values

        write_to_disk(
            tmp_path,
            lambda root: "turned",
            codec.layout,
            lambda writer: codec.fill(writer, turned, None),
        )[1].close()
    neighbours = (
        Neighbour("helper", good, 0.3),
        Neighbour("attacker", str(tmp_path / "turned"), 0.3),
    )
    state = learner.mix(1, own, neighbours)
    trust = averager_of(learner)._trust
    assert trust["attacker"] < 0 < trust["helper"]
    expected = safetensors.torch.load_file(own)["0.weight"]
    expected += 0.3 * (safetensors.torch.load_file(good)["0.weight"] - expected)
    found = safetensors.torch.load_file(state.state.path)["model/0.weight"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_trial_keeps_samples_back(make_opening: MakeOpening) -> None:
    opened = [
        open_learner(make_opening(rule, exchange="gossip", aggregation=rule)).opened
        for rule in ("mean", "trial")
    ]
    assert [one.sample_count for one in opened] == [480, 416]
    with pytest.raises(ConfigError, match="this shard has 24, at least 40 are needed"):
        open_learner(make_opening(exchange="gossip", aggregation="trial", shard=(0, 20)))


def test_weights_above_one_together_are_refused(make_opening: MakeOpening) -> None:
    learner = open_learner(make_opening(exchange="gossip"))
    path = train(learner, 1).updates[0].path
    for weights in ([0.6, 0.6], [-0.1, 0.2], [float("nan"), 0.1]):
        neighbours = tuple(Neighbour(f"{i}", path, one) for i, one in enumerate(weights))
        with pytest.raises(WorkerError, match="at most 1 together"):
            learner.mix(1, path, neighbours)


def test_mixing_outside_gossip_is_refused(make_opening: MakeOpening) -> None:
    learner = open_learner(make_opening())
    path = train(learner, 1).updates[0].path
    with pytest.raises(WorkerError, match="in gossip only"):
        learner.mix(1, path, ())
    assert Path(path).exists()


@pytest.mark.parametrize(
    "settings",
    [{"aggregation": "krum:1"}, {"compression": "topk"}, {"outer_momentum": 0.5}],
)
def test_what_does_not_go_with_gossip_is_refused(
    make_opening: MakeOpening, settings: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match="does not go with gossip"):
        open_learner(make_opening(exchange="gossip", **settings))
