"""Weights out of a file that p2pd exported, or that has the same names: safetensors, no pickle.

>>> import tempfile
>>> from safetensors.torch import save_file
>>> theirs, ours = nn.Linear(2, 1), nn.Linear(2, 1)
>>> with tempfile.TemporaryDirectory() as directory:
...     file = Path(directory) / "theirs.safetensors"
...     save_file(theirs.state_dict(), file)
...     start_from(ours, file)
>>> torch.equal(ours.weight, theirs.weight)
True
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ml.state.provenance import frozen_digest, read_provenance
from p2pd.what_travels import Description, is_trained, tensors_of
from protocol.errors import ConfigError


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a file, by name. Raises :class:`ConfigError`."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path} cannot be read as safetensors: {reason}") from error


def check_base(frozen: Sequence[Description], path: Path) -> None:
    """Raises :class:`ConfigError` where a file's weights were trained on another base.

    ``frozen``: what does not travel here.
    """
    there = read_provenance(path).get("frozen")
    if there is not None and there != frozen_digest(frozen):
        raise ConfigError(
            f"the weights in {path} were trained on other frozen tensors than model() makes: take"
            " the task and the seed of the swarm that they come from"
        )


def start_from(model: nn.Module, path: Path) -> None:
    """Give ``model`` what it trains out of a file: that has to be there, all of it.

    What is not trained stays as model() makes it, since all peers make it so; a file that has it
    otherwise is refused. Raises :class:`ConfigError` naming the tensor.

    >>> import tempfile
    >>> from safetensors.torch import save_file
    >>> model, other = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory) / "model.safetensors"
    ...     save_file(dict(other.state_dict()), path)
    ...     start_from(model, path)
    >>> torch.equal(model.weight, other.weight)
    True
    """
    given = read_weights(path)
    for name, tensor in tensors_of(model).items():
        value = given.get(name)
        if value is None:
            if is_trained(tensor):
                raise ConfigError(f"{path} has no {name}, which this model trains")
            continue
        if value.shape != tensor.shape:
            raise ConfigError(
                f"{path} has {name} as {list(value.shape)}, and model() makes it as"
                f" {list(tensor.shape)}"
            )
        if isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
            if not torch.equal(value.to(tensor.dtype), tensor):
                raise ConfigError(f"{path} has another {name} than model() makes: another base")
            continue
        with torch.no_grad():
            tensor.copy_(value)
