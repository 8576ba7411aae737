"""Small models for the tests, and their states and updates in a directory."""

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from ml.state.checkpoint import CheckpointStore
from ml.state.state import State
from ml.state.tensor_store import write_to_disk
from ml.training.model_tensors import fill_from_model, manifest_of, model_block
from ml.update.codec import UpdateCodec
from ml.update.dense import Float32Encoding
from ml.update.pseudo_gradient import pseudo_gradient, trained_values
from p2pd.what_travels import tensors_of


class MixedModel(nn.Module):
    """Something of everything: tied weights, running statistics, counters, flags, bfloat16."""

    cache: torch.Tensor
    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)
        self.output = nn.Linear(4, 7)
        self.output.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("cache", torch.zeros(5), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.output(self.norm(self.embedding(tokens)))
        return outputs


def make_model(seed: int = 0, model: type[nn.Module] = MixedModel) -> nn.Module:
    torch.manual_seed(seed)
    return model()


def save_state(
    model: nn.Module, directory: Path, round_number: int = 0, *, keeps_momentum: bool = False
) -> State:
    """The state that has the model's tensors (round 0, or without momentum)."""
    manifest = manifest_of(model)
    store = CheckpointStore(directory, manifest, keeps_momentum=keeps_momentum)
    return store.save(round_number, fill_from_model(model, manifest))


def write_update(
    base: State, trained: nn.Module, path: Path, codec: UpdateCodec | None = None
) -> Path:
    """The update of ``trained`` against ``base``, without error feedback."""
    codec = codec or UpdateCodec(base.manifest, Float32Encoding())
    tensors = tensors_of(trained)
    _, file = write_to_disk(
        path.parent,
        lambda root: path.name,
        codec.layout,
        lambda writer: codec.fill(
            writer,
            lambda spec, start, stop: (
                pseudo_gradient(
                    spec, base.read(spec, start, stop), model_block(tensors[spec.name], start, stop)
                )
                if spec.is_float
                else trained_values(spec, model_block(tensors[spec.name], start, stop))
            ),
            None,
        ),
    )
    file.close()
    return path


def perturbed(model: nn.Module, seed: int, scale: float = 0.1) -> nn.Module:
    """A copy of ``model`` whose float tensors were moved at random."""
    copy = type(model)()
    copy.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in tensors_of(copy).values():
            if tensor.dtype.is_floating_point:
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.add_((scale * noise).to(tensor.dtype))
    return copy


def state_tensors(state: State) -> dict[str, NDArray[Any]]:
    """All of a state, by name in its file."""
    return {
        name: state.file.read(name).reshape(tensor.shape)
        for name, tensor in state.file.layout.tensors.items()
    }
