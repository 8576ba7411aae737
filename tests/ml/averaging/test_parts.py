"""Parts of the model in all-reduce."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.averaging.messages import Contribution, PartResult, Reduced
from ml.learner import Learner
from ml.opening import StateReady
from ml.state.blob import Blob
from ml.state.manifest import Manifest, TensorSpec
from ml.update.codec import UpdateCodec
from ml.update.dense import Float32Encoding
from ml.update.parts import segments_of
from protocol.codec import decode, encode
from protocol.errors import ConfigError, VerificationError, WorkerError
from tests.ml.conftest import MakeOpening
from tests.ml.running import apply, averager_of, model_of, open_learner, open_three, train

SIZES = st.lists(st.integers(0, 5000), min_size=1, max_size=6)


def manifest_of_sizes(sizes: list[int]) -> Manifest:
    return Manifest(
        tuple(TensorSpec(f"t{i}", "F32", (size,), "parameter") for i, size in enumerate(sizes))
    )


def train_in_parts(learners: list[Learner], round_number: int) -> list[tuple[Contribution, ...]]:
    """For each part, what everyone contributes to it."""
    parts = len(learners)
    updates = [train(learner, round_number, parts=parts) for learner in learners]
    return [
        tuple(
            Contribution(f"peer {i}", update.updates[part].path, update.sample_count)
            for i, update in enumerate(updates)
        )
        for part in range(parts)
    ]


def reduce_all(learners: list[Learner], round_number: int) -> list[Reduced]:
    contributions = train_in_parts(learners, round_number)
    parts = len(learners)
    for part, ones in enumerate(contributions):
        for one in ones:
            learners[part].check_update(round_number, Path(one.path), part, parts)
    return [
        learner.reduce(round_number, part, parts, contributions[part])
        for part, learner in enumerate(learners)
    ]


def apply_parts(learner: Learner, round_number: int, reduced: dict[int, Blob]) -> StateReady:
    results = tuple(PartResult(part, blob.path) for part, blob in reduced.items())
    return learner.apply_parts(round_number, 3, results)


@settings(max_examples=200)
@given(SIZES, st.integers(1, 9), st.sampled_from([1, 256, 4096]))
def test_parts_together_have_every_element_once(sizes: list[int], parts: int, grain: int) -> None:
    manifest = manifest_of_sizes(sizes)
    seen = {spec.name: np.zeros(spec.element_count, int) for spec in manifest.tensors}
    for part in range(parts):
        for segment in segments_of(manifest, part, parts, grain):
            seen[segment.spec.name][segment.start : segment.stop] += 1
    assert all((counts == 1).all() for counts in seen.values())


@settings(max_examples=100)
@given(SIZES, st.integers(1, 9))
def test_parts_are_of_equal_size(sizes: list[int], parts: int) -> None:
    manifest = manifest_of_sizes(sizes)
    counts = [
        sum(segment.element_count for segment in segments_of(manifest, part, parts, 1))
        for part in range(parts)
    ]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(("part", "parts"), [(3, 3), (-1, 3), (0, 0), (0, 10**9)])
def test_part_that_there_is_not_is_refused(part: int, parts: int) -> None:
    """The numbers come from strangers' headers."""
    with pytest.raises(VerificationError, match=f"part {part} of {parts}"):
        UpdateCodec(manifest_of_sizes([10]), Float32Encoding(), part, parts)


def test_claims_of_any_number_of_samples_end_no_round(make_opening: MakeOpening) -> None:
    learners = open_three(make_opening, exchange="allreduce")
    ones = tuple(
        msgspec.structs.replace(one, sample_count=2**64 - 1)
        for one in train_in_parts(learners, 1)[0]
    )
    reduced = learners[0].reduce(1, 0, 3, ones)
    assert decode(encode(reduced), Reduced) == reduced


@pytest.mark.parametrize(
    ("compression", "tolerance"), [("none", 1e-6), ("fp16", 0.02), ("int8", 0.02), ("int4", 0.1)]
)
def test_peers_hold_the_same_weights_near_those_of_the_mesh(
    make_opening: MakeOpening, compression: str, tolerance: float
) -> None:
    common: dict[str, Any] = {"compression": compression, "outer_momentum": 0.3}
    learners = open_three(make_opening, exchange="allreduce", **common)
    reference = open_three(make_opening, "mesh", **common)
    reduced = reduce_all(learners, 1)
    assert [one.sample_count for one in reduced] == [480] * 3
    by_part = {part: one.update for part, one in enumerate(reduced)}
    states = [apply_parts(learner, 1, by_part) for learner in learners]
    assert len({state.state.root for state in states}) == 1
    expected = apply(reference[0], 1, [train(learner, 1) for learner in reference])
    found = safetensors.torch.load_file(states[0].state.path)
    for name, tensor in safetensors.torch.load_file(expected.state.path).items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=tolerance)
    by_part = {part: one.update for part, one in enumerate(reduce_all(learners, 2))}
    assert len({apply_parts(one, 2, by_part).state.root for one in learners}) == 1


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_parts_together_are_the_weighted_mean_that_plain_numpy_computes(
    make_opening: MakeOpening, parts: int
) -> None:
    """However many parts, unequal shards, and a claim of too many samples."""
    learners = open_three(make_opening, exchange="allreduce", max_sample_weight=400)
    counts = (100, 300, 10**9)
    weights = np.array([100, 300, 400]) / 800
    updates = [train(learner, 1, parts=parts) for learner in learners]
    local = [model_of(learner).state_dict() for learner in learners]
    expected = {
        name: sum(w * one[name].numpy() for w, one in zip(weights, local, strict=True))
        for name, tensor in local[0].items()
        if tensor.dtype.is_floating_point
    }
    reduced = []
    for part in range(parts):
        contributions = tuple(
            Contribution(f"peer {i}", update.updates[part].path, count)
            for i, (update, count) in enumerate(zip(updates, counts, strict=True))
        )
        reduced.append(learners[0].reduce(1, part, parts, contributions))
    results = tuple(PartResult(part, one.update.path) for part, one in enumerate(reduced))
    state = learners[0].apply_parts(1, parts, results)
    found = safetensors.numpy.load_file(state.state.path)
    for name, values in expected.items():
        np.testing.assert_allclose(found[f"model/{name}"], values, rtol=1e-5, atol=1e-6)
    assert found["model/1.num_batches_tracked"] == local[0]["1.num_batches_tracked"]


def test_all_parts_together_are_hardly_larger_than_the_update(make_opening: MakeOpening) -> None:
    learner = open_learner(make_opening(task="digits", builtin=True, local_amount=0.05))
    whole = learner.opened.max_update_bytes
    for parts in (4, 8, 16):
        blobs = train(learner, 1, parts=parts).updates
        assert len(blobs) == parts
        assert sum(blob.size_bytes for blob in blobs) < 1.03 * whole + 400 * parts
        assert max(blob.size_bytes for blob in blobs) < 1.1 * whole / parts + 500


def test_part_that_is_lacking_stays_as_it_was(make_opening: MakeOpening) -> None:
    learners = open_three(make_opening, exchange="allreduce", outer_momentum=0.5)
    by_part = {part: one.update for part, one in enumerate(reduce_all(learners, 1))}
    before = safetensors.torch.load_file(apply_parts(learners[0], 1, by_part).state.path)
    for learner in learners[1:]:
        apply_parts(learner, 1, by_part)
    by_part = {part: one.update for part, one in enumerate(reduce_all(learners, 2))}
    del by_part[1]
    after = safetensors.torch.load_file(apply_parts(learners[0], 2, by_part).state.path)
    lacking = segments_of(averager_of(learners[0])._manifest, 1, 3, 1)
    for spec in averager_of(learners[0])._manifest.tensors:
        kinds = ("model", "momentum") if spec.has_momentum else ("model",)
        inside = np.zeros(spec.element_count, bool)
        for segment in lacking:
            if segment.spec == spec:
                inside[segment.start : segment.stop] = True
        for kind in kinds:
            same = (before[f"{kind}/{spec.name}"] == after[f"{kind}/{spec.name}"]).reshape(-1)
            assert same.numpy()[inside].all()
            # The batch normalization after it leaves 0.bias without a gradient.
            if kind == "momentum" and spec.name != "0.bias":
                assert not same.numpy()[~inside].any()


def test_part_that_was_averaged_is_not_averaged_again(make_opening: MakeOpening) -> None:
    """A second result for the same part would look like a lie."""
    learners = open_three(make_opening, exchange="allreduce")
    contributions = train_in_parts(learners, 1)
    first = learners[1].reduce(1, 1, 3, contributions[1])
    learners[1].close()
    reopened = open_learner(make_opening("peer 1", shard=(1, 3), exchange="allreduce"))
    assert reopened.reduce(1, 1, 3, contributions[1][:2]) == first


def test_part_in_place_of_another_is_refused(make_opening: MakeOpening) -> None:
    learners = open_three(make_opening, exchange="allreduce")
    contributions = train_in_parts(learners, 1)
    with pytest.raises(VerificationError, match=r"tensor .* has shape|is not in the model"):
        learners[0].check_update(1, Path(contributions[0][0].path), 1, 3)
    with pytest.raises(VerificationError):
        learners[0].check_update(1, Path(contributions[0][0].path))


def test_nothing_to_average_is_told(make_opening: MakeOpening) -> None:
    with pytest.raises(WorkerError, match="nothing to average for part 2"):
        open_learner(make_opening(exchange="allreduce")).reduce(1, 2, 3, ())


def test_update_in_parts_outlives_a_restart(make_opening: MakeOpening) -> None:
    settings = {"local_unit": "seconds", "local_amount": 0.05, "compression": "int8"}
    learner = open_learner(make_opening(exchange="allreduce", **settings))
    before = train(learner, 1, parts=3)
    learner.close()
    reopened = open_learner(make_opening(exchange="allreduce", **settings))
    assert train(reopened, 1, parts=3) == before


@pytest.mark.parametrize(
    "settings",
    [{"aggregation": "median"}, {"compression": "topk"}],
)
def test_what_does_not_go_with_allreduce_is_refused(
    make_opening: MakeOpening, settings: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match="does not go with allreduce"):
        open_learner(make_opening(exchange="allreduce", **settings))


def test_part_that_was_written_before_a_crash_is_not_made_again(
    make_opening: MakeOpening,
) -> None:
    opening = make_opening(exchange="allreduce", local_unit="steps", local_amount=1)
    learner = open_learner(opening)
    before = train(learner, 1, parts=3)
    learner.close()
    kept, lost = (Path(before.updates[part].path) for part in (0, 1))
    file = kept.stat().st_ino
    lost.unlink()
    after = train(open_learner(opening), 1, parts=3)
    assert after.updates[0] == before.updates[0]
    assert kept.stat().st_ino == file
    assert lost.stat().st_size == before.updates[1].size_bytes


def test_parts_of_one_training_are_written_together_where_they_leave_something_over(
    make_opening: MakeOpening,
) -> None:
    """What is left over is one file: without it a part must not be known to anybody."""
    opening = make_opening(
        exchange="allreduce", compression="int8", local_unit="steps", local_amount=1
    )
    learner = open_learner(opening)
    before = train(learner, 1, parts=3)
    learner.close()
    kept, lost = (Path(before.updates[part].path) for part in (0, 2))
    file = kept.stat().st_ino
    lost.unlink()
    after = train(open_learner(opening), 1, parts=3)
    assert kept.stat().st_ino != file
    assert [blob.size_bytes for blob in after.updates] == [
        blob.size_bytes for blob in before.updates
    ]
