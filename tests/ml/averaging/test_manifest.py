import pytest
import torch
from torch import nn

from ml.state.manifest import TensorSpec
from ml.training.model_tensors import manifest_of
from p2pd.what_travels import tensors_of, tied_names
from protocol.errors import ConfigError
from tests.ml.small_models import MixedModel, make_model


def test_manifest_lists_each_tensor_once_sorted_by_name() -> None:
    manifest = manifest_of(make_model())
    assert manifest.tensors == (
        TensorSpec("embedding.weight", "F32", (7, 4), "parameter"),
        TensorSpec("mask", "BOOL", (3,), "buffer"),
        TensorSpec("norm.bias", "F32", (4,), "parameter"),
        TensorSpec("norm.num_batches_tracked", "I64", (), "buffer"),
        TensorSpec("norm.running_mean", "F32", (4,), "buffer"),
        TensorSpec("norm.running_var", "F32", (4,), "buffer"),
        TensorSpec("norm.weight", "F32", (4,), "parameter"),
        TensorSpec("output.bias", "F32", (7,), "parameter"),
        TensorSpec("scale", "BF16", (3,), "parameter"),
    )
    assert manifest.parameter_count == 28 + 4 + 4 + 7 + 3


def test_tied_tensor_is_known_by_its_other_name() -> None:
    assert tied_names(make_model()) == {"output.weight": "embedding.weight"}


def test_digest_never_changes() -> None:
    """Golden value: it is in the swarm statements that people keep."""
    assert manifest_of(make_model()).digest.hex()[:16] == "8f36eb9786892ed0"


def test_digest_follows_names_shapes_dtypes_and_kinds() -> None:
    class WithBuffer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3, 2))
            self.register_buffer("bias", torch.zeros(3))

    digests = {
        manifest_of(model).digest
        for model in (nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(2, 3).half(), WithBuffer())
    }
    assert len(digests) == 4
    assert manifest_of(nn.Linear(2, 3)).digest == manifest_of(nn.Linear(2, 3)).digest


def test_text_shows_every_tensor_and_the_digest() -> None:
    manifest = manifest_of(MixedModel())
    text = manifest.as_text()
    assert all(spec.name in text for spec in manifest.tensors)
    assert manifest.digest.hex() in text


def test_model_that_cannot_be_exchanged_is_explained() -> None:
    with pytest.raises(ConfigError, match="no parameters"):
        manifest_of(nn.ReLU())
    with pytest.raises(ConfigError, match=r"bias is of torch\.complex64"):
        manifest_of(nn.Linear(2, 2, dtype=torch.complex64))
    with pytest.raises(ConfigError, match="weight is not an ordinary dense tensor"):
        manifest_of(nn.Linear(2, 2, device="meta"))


def test_tensors_are_the_models_own() -> None:
    model = make_model()
    with torch.no_grad():
        tensors_of(model)["output.bias"].fill_(5)
    assert model.state_dict()["output.bias"].eq(5).all()
