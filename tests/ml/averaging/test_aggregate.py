import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ml.aggregate.aggregation import (
    CenteredClipping,
    Krum,
    Median,
    TrimmedMean,
    WeightedMean,
    parse_aggregation,
    squared_norms,
)
from ml.aggregate.outer_optimizer import OuterOptimizer
from protocol.errors import ConfigError, WorkerError

Floats = NDArray[np.float32]

RULES = ["mean", "trimmed_mean:0.2", "median", "krum:2", "centered_clip"]


def updates(peers: int, count: int = 1000, seed: int = 0) -> Floats:
    random = np.random.default_rng(seed)
    return (1 + 0.1 * random.standard_normal((peers, count))).astype(np.float32)


def combine(rule: str, stack: Floats, sample_counts: list[int] | None = None) -> Floats:
    """As the next state does it: in blocks."""

    def stacks() -> Iterator[Floats]:
        for start in range(0, stack.shape[1], 300):
            yield stack[:, start : start + 300]

    plan = parse_aggregation(rule, 1000).plan(sample_counts or [1] * len(stack), stacks)
    return np.concatenate([plan.parameters(block) for block in stacks()])


def test_mean_weighs_by_samples() -> None:
    stack = updates(3)
    expected = np.average(stack.astype(np.float64), axis=0, weights=[1, 2, 5])
    np.testing.assert_allclose(combine("mean", stack, [1, 2, 5]), expected, rtol=1e-6)


def test_claimed_samples_count_up_to_the_bound_only() -> None:
    stack = updates(2)
    assert np.array_equal(
        combine("mean", stack, [10**12, 1000]), combine("mean", stack, [1000, 1000])
    )


def test_no_samples_count_more_than_ten_times_what_half_of_the_peers_have_at_most() -> None:
    stack = updates(3)
    assert np.array_equal(combine("mean", stack, [5, 7, 900]), combine("mean", stack, [5, 7, 70]))
    assert not np.array_equal(
        combine("mean", stack, [5, 7, 69]), combine("mean", stack, [5, 7, 70])
    )
    pair = updates(2)
    assert np.array_equal(combine("mean", pair, [3, 900]), combine("mean", pair, [3, 30]))


def test_mean_of_one_update_is_that_update() -> None:
    stack = updates(1)
    for rule in ("mean", "trimmed_mean:0.4", "median", "centered_clip"):
        assert np.array_equal(combine(rule, stack), stack[0])


@pytest.mark.parametrize("peers", [3, 4, 5, 8])
def test_median_is_that_of_numpy(peers: int) -> None:
    stack = updates(peers)
    np.testing.assert_allclose(combine("median", stack), np.median(stack, axis=0), rtol=1e-6)


def test_trimmed_mean_leaves_out_both_ends() -> None:
    stack = updates(10)
    expected = np.sort(stack, axis=0)[3:7].mean(axis=0)
    np.testing.assert_allclose(combine("trimmed_mean:0.3", stack), expected, rtol=1e-6)
    np.testing.assert_allclose(
        combine("trimmed_mean:0.2", stack[:3]), np.median(stack[:3], axis=0), rtol=1e-6
    )


def test_krum_takes_the_update_that_a_plain_computation_takes() -> None:
    stack = updates(7)
    stack[:2] += 3
    distances = ((stack[:, None].astype(np.float64) - stack[None]) ** 2).sum(axis=2)
    scores = [np.sort(np.delete(row, i))[: 7 - 2 - 2].sum() for i, row in enumerate(distances)]
    chosen = int(np.argmin(scores))
    assert chosen >= 2
    assert np.array_equal(combine("krum:2", stack), stack[chosen])


def test_krum_needs_enough_updates() -> None:
    with pytest.raises(WorkerError, match="krum:2 needs 7 updates, and there are 6"):
        combine("krum:2", updates(6))


@pytest.mark.parametrize(("further_off", "is_left_out"), [(1.05, False), (1.3, True)])
def test_centered_clipping_is_the_formula(further_off: float, is_left_out: bool) -> None:
    stack = updates(6)
    center = np.median(stack, axis=0)
    stack[5] = center + further_off * (stack[5] - center)
    center = np.median(stack, axis=0)
    ways = stack - center
    distances = np.linalg.norm(ways.astype(np.float64), axis=1)
    threshold = np.median(distances)
    clipped = ways * np.minimum(1, threshold / distances)[:, None]
    kept = clipped[: 5 if is_left_out else 6]
    np.testing.assert_allclose(
        combine("centered_clip", stack), center + kept.mean(axis=0), rtol=1e-5
    )


def test_centered_clipping_follows_the_honest_spread() -> None:
    """Where honest updates differ in how far off they are, nobody is left out for that."""
    stack = updates(7)
    stack = 1 + (stack - 1) * np.linspace(0.5, 1.5, 7, dtype=np.float32)[:, None]
    center = np.median(stack, axis=0)
    ways = stack - center
    distances = np.linalg.norm(ways.astype(np.float64), axis=1)
    clipped = ways * np.minimum(1, np.median(distances) / distances)[:, None]
    np.testing.assert_allclose(
        combine("centered_clip", stack), center + clipped.mean(axis=0), rtol=1e-5
    )


def test_centered_clipping_leaves_equal_updates_alone() -> None:
    stack = np.repeat(updates(1), 4, axis=0)
    assert np.array_equal(combine("centered_clip", stack), stack[0])


@pytest.mark.parametrize("rule", RULES[1:])
@pytest.mark.parametrize("attack", [1e9, -1e9, -1.0, 0.0])
def test_robust_rules_stay_near_the_honest_where_two_of_nine_lie(rule: str, attack: float) -> None:
    stack = updates(9)
    honest_mean = stack[2:].mean(axis=0)
    stack[:2] = attack
    error = np.linalg.norm(combine(rule, stack) - honest_mean) / np.linalg.norm(honest_mean)
    assert error < 0.15


@pytest.mark.parametrize("rule", RULES)
def test_aggregation_does_not_depend_on_how_the_blocks_are_cut_or_laid_out(rule: str) -> None:
    stack = updates(7, 5000)
    plan_a = parse_aggregation(rule, 10).plan([1] * 7, lambda: iter([stack]))
    backwards = np.asfortranarray(stack)
    plan_b = parse_aggregation(rule, 10).plan([1] * 7, lambda: iter([backwards]))
    whole = plan_a.parameters(stack)
    assert whole.dtype == np.float32
    parts = [plan_b.parameters(backwards[:, i : i + 7]) for i in range(0, 5000, 7)]
    assert whole.tobytes() == np.concatenate(parts).tobytes()


def test_signed_zeros_do_not_make_medians_differ() -> None:
    for order in itertools.permutations([0.0, -0.0, 0.0]):
        stack = np.array([[value] for value in order], np.float32)
        assert combine("median", stack).tobytes() == np.float32(0).tobytes()


def test_squared_norms_are_the_same_for_any_memory_layout() -> None:
    rows = updates(3, 12_345)
    norms = squared_norms(rows)
    assert norms.tobytes() == squared_norms(np.asfortranarray(rows)).tobytes()
    np.testing.assert_allclose(norms, (rows.astype(np.float64) ** 2).sum(axis=1), rtol=1e-12)
    assert squared_norms(np.zeros((2, 0), np.float32)).tolist() == [0, 0]


def test_buffers_of_a_chosen_or_clipped_peer_are_not_believed() -> None:
    stack = updates(7)
    poisoned = stack[:, :4].copy()
    poisoned[3] = 1e9
    for rule in ("krum:2", "centered_clip"):
        plan = parse_aggregation(rule, 10).plan([1] * 7, lambda: iter([stack]))
        assert plan.buffers(poisoned).max() < 2


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("mean", WeightedMean(10)),
        ("median", Median()),
        ("trimmed_mean", TrimmedMean(0.2)),
        ("trimmed_mean:0.3", TrimmedMean(0.3)),
        ("krum:1", Krum(1)),
        ("centered_clip", CenteredClipping()),
    ],
)
def test_rules_by_name(text: str, rule: object) -> None:
    assert parse_aggregation(text, 10) == rule


@pytest.mark.parametrize("text", ["", "mode", "mean:2", "krum", "krum:-1", "trimmed_mean:0.5"])
def test_unknown_rule_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="aggregation"):
        parse_aggregation(text, 10)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_outer_step_is_that_of_torch_sgd_with_nesterov(momentum: float) -> None:
    random = np.random.default_rng(1)
    base = random.standard_normal(50).astype(np.float32)
    parameter = torch.nn.Parameter(torch.from_numpy(base.copy()))
    reference = torch.optim.SGD([parameter], lr=0.7, momentum=momentum, nesterov=momentum > 0)
    outer = OuterOptimizer(0.7, momentum)
    velocity = np.zeros(50, np.float32) if momentum else None
    for _ in range(5):
        gradient = random.standard_normal(50).astype(np.float32)
        parameter.grad = torch.from_numpy(gradient.copy())
        reference.step()
        base, velocity = outer.step(base, velocity, gradient)
        assert base.dtype == np.float32
    np.testing.assert_allclose(base, parameter.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_learning_rate_1_without_momentum_is_the_average_of_the_models() -> None:
    random = np.random.default_rng(2)
    base = random.standard_normal(50).astype(np.float32)
    models = base + 0.1 * random.standard_normal((3, 50)).astype(np.float32)
    following, _ = OuterOptimizer(1, 0).step(base, None, combine("mean", base - models))
    np.testing.assert_allclose(following, models.mean(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("rate", "momentum"), [(0, 0), (-1, 0), (1, 1), (1, -0.1), (99, 0)])
def test_outer_settings_that_cannot_converge_are_refused(rate: float, momentum: float) -> None:
    with pytest.raises(ConfigError, match="outer"):
        OuterOptimizer(rate, momentum)
