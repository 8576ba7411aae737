"""What ``swarm.save(whole=True)`` writes: other programs load it, and it never replaces what is no
plain file."""

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from p2pd import SwarmError
from p2pd.script.ranks import Alone
from p2pd.script.replica import Replica
from tests.ml.small_models import MixedModel, make_model


def save(model: nn.Module, path: Path) -> None:
    """Save ``model`` by way of a swarm, whose export has what is trained of it."""
    replica = Replica(model, Alone())
    tensors = model.state_dict()
    trained = {str(name): tensors[str(name)] for name, *_ in replica.description}
    replica.save_whole(path, lambda to: save_file(trained, to, metadata={"round": "3"}))


@pytest.mark.parametrize("frozen", ["embedding.weight", "output.bias", "scale"])
def test_file_has_all_that_the_model_has(tmp_path: Path, frozen: str) -> None:
    """Tied tensors and those of all dtypes, whichever of them stays as it is."""
    model = make_model(1)
    model.get_parameter(frozen).requires_grad_(False)
    path = tmp_path / "model.safetensors"
    path.write_text("what was there before")
    save(model, path)
    found, expected = load_file(path), model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    other = make_model(2)
    other.load_state_dict(found)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"round": "3"}
    assert os.listdir(tmp_path) == [path.name]


def test_what_cannot_be_written_leaves_all_as_it_was(tmp_path: Path) -> None:
    model = MixedModel()
    model.get_parameter("scale").requires_grad_(False)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SwarmError, match="is no plain file"):
        save(model, tmp_path / "pipe")
    with pytest.raises(SwarmError, match="No such file or directory"):
        save(model, tmp_path / "nowhere" / "model")
    model.register_parameter("odd", nn.Parameter(torch.ones(1, dtype=torch.complex64), False))
    with pytest.raises(SwarmError, match=r"odd is of torch.complex64, which p2pd does not write"):
        save(model, tmp_path / "model")
    assert os.listdir(tmp_path) == ["pipe"]
