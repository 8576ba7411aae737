"""Rounds of a model with tied weights, statistics, counters, flags and bfloat16."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from ml.aggregate.aggregation import WeightedMean
from ml.aggregate.average import Average
from ml.aggregate.next_state import Piece, fill_next_state
from ml.aggregate.outer_optimizer import OuterOptimizer
from ml.state.checkpoint import CheckpointStore
from ml.state.export import export_state
from ml.state.state import State
from ml.training.model_tensors import load_into_model
from ml.update.codec import PACKED, UpdateCodec, parse_encoding
from ml.update.dense import Float32Encoding
from ml.update.topk import TopKEncoding
from p2pd.what_travels import tied_names
from tests.ml.small_models import (
    MixedModel,
    make_model,
    perturbed,
    save_state,
    state_tensors,
    write_update,
)


def next_state(base: State, paths: list[Path], directory: Path, codec: UpdateCodec) -> State:
    updates = [codec.open(path) for path in paths]
    average = Average(updates, lambda stacks: WeightedMean(10).plan([1] * len(updates), stacks))
    pieces = [Piece(codec.segments, average.read)]
    store = CheckpointStore(directory, base.manifest, keeps_momentum=False)
    return store.save(base.round + 1, fill_next_state(base, OuterOptimizer(1, 0), pieces))


def test_state_goes_into_a_model_and_comes_back(tmp_path: Path) -> None:
    model = perturbed(make_model(), 1)
    state = save_state(model, tmp_path / "a")
    other = make_model(5)
    load_into_model(state, other)
    assert save_state(other, tmp_path / "b").blob.root == state.blob.root
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert other.state_dict()["output.weight"].data_ptr() == (
        other.state_dict()["embedding.weight"].data_ptr()
    )


def test_kinds_of_tensors_are_averaged_each_in_their_way(tmp_path: Path) -> None:
    model = make_model()
    base = save_state(model, tmp_path / "base")
    trained = [perturbed(model, seed) for seed in (1, 2)]
    for count, one in zip((5, 9), trained, strict=True):
        one.state_dict()["norm.num_batches_tracked"].fill_(count)
    trained[1].state_dict()["mask"][1] = True
    codec = UpdateCodec(base.manifest, Float32Encoding())
    paths = [write_update(base, one, tmp_path / f"{i}") for i, one in enumerate(trained)]
    tensors = state_tensors(next_state(base, paths, tmp_path / "next", codec))
    assert tensors["model/norm.num_batches_tracked"] == 9
    assert tensors["model/mask"].tolist() == [True, True, True]
    for name in ("embedding.weight", "norm.running_var", "scale"):
        mean = torch.stack([one.state_dict()[name].float() for one in trained]).mean(0)
        np.testing.assert_allclose(tensors[f"model/{name}"], mean, rtol=1e-5, atol=1e-6)


def test_half_precision_weights_do_not_drift_by_rounding(tmp_path: Path) -> None:
    """The state keeps in float32 what bfloat16 cannot hold, also where nothing was trained."""
    model = make_model()
    base = save_state(model, tmp_path / "base")
    codec = UpdateCodec(base.manifest, Float32Encoding())
    paths = [write_update(base, perturbed(model, seed), tmp_path / f"{seed}") for seed in (1, 2)]
    finer = next_state(base, paths, tmp_path / "next", codec)
    rounded = make_model()
    load_into_model(finer, rounded)
    untrained = write_update(finer, rounded, tmp_path / "untrained")
    after = next_state(finer, [untrained], tmp_path / "after", codec)
    assert (state_tensors(finer)["model/scale"].astype("<f4").view(np.uint32) & 0xFFFF).any()
    assert np.array_equal(state_tensors(after)["model/scale"], state_tensors(finer)["model/scale"])


def test_sparse_updates_leave_running_statistics_exact(tmp_path: Path) -> None:
    model = make_model()
    base = save_state(model, tmp_path / "base")
    trained = perturbed(model, 1)
    codec = UpdateCodec(base.manifest, TopKEncoding(4))
    path = write_update(base, trained, tmp_path / "update", codec)
    tensors = state_tensors(next_state(base, [path], tmp_path / "next", codec))
    np.testing.assert_allclose(
        tensors["model/norm.running_var"], trained.state_dict()["norm.running_var"], rtol=1e-6
    )


@pytest.mark.parametrize("compression", ["fp16", "int8", "int4", "topk:4"])
def test_encoded_parameters_are_one_tensor_of_the_file(tmp_path: Path, compression: str) -> None:
    """Names and places of many small tensors would be longer than their numbers."""
    model = make_model()
    base = save_state(model, tmp_path / "base")
    encoding = parse_encoding(compression)
    codec = UpdateCodec(base.manifest, encoding)
    loaded = safetensors.numpy.load_file(
        write_update(base, perturbed(model, 1), tmp_path / "update", codec)
    )
    parameters = [spec for spec in base.manifest.tensors if spec.kind == "parameter"]
    exact = {spec.name for spec in base.manifest.tensors if spec.kind == "buffer"}
    assert set(loaded) == {PACKED} | exact
    assert loaded[PACKED].size == sum(
        encoding.wire_count(spec.element_count) for spec in parameters
    )
    assert (
        loaded[PACKED].dtype.itemsize == {"fp16": 2, "int8": 1, "int4": 1, "topk:4": 1}[compression]
    )


def test_export_has_every_name_and_the_models_own_dtypes(tmp_path: Path) -> None:
    model = perturbed(make_model(), 3)
    state = save_state(model, tmp_path / "base")
    path = tmp_path / "model.safetensors"
    export_state(state, tied_names(model), path, {})
    loaded = safetensors.torch.load_file(path)
    assert loaded["scale"].dtype == torch.bfloat16
    fresh = MixedModel()
    fresh.load_state_dict(loaded, strict=True)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), fresh.state_dict().values(), strict=True)
    )
