"""What a peer contributes to a round: how far its training moved away from the round's base."""

import numpy as np
import torch

from ml.state.manifest import TensorSpec
from ml.state.model_tensors import model_block
from ml.state.state import State
from ml.state.tensor_file import AnyArray
from ml.update.encoding import Floats, within_magnitude
from protocol.errors import WorkerError


def trained_values(spec: TensorSpec, trained: torch.Tensor, start: int, stop: int) -> AnyArray:
    """A block as the training left it: what gossip sends, and integers always.

    Raises :class:`WorkerError` when the training left numbers that cannot be used.
    """
    values = model_block(trained, start, stop)
    if spec.is_float and not within_magnitude(values):
        raise WorkerError(f"training diverged: NaN, infinity or huge numbers in {spec.name}")
    return values


def pseudo_gradient(
    base: State, spec: TensorSpec, trained: torch.Tensor, start: int, stop: int
) -> Floats:
    """``base - trained`` for a block of a float tensor (DiLoCo, arXiv 2311.08105, algorithm 1).

    The base is taken as the model had it: where that computes in half precision, the rounding of
    the base on loading is not part of the update. Raises :class:`WorkerError` when the training
    left numbers that cannot be used.
    """
    began_from = torch.from_numpy(base.read(spec, start, stop)).to(trained.dtype)
    return _way(spec, _floats(began_from, 0, stop - start), _floats(trained, start, stop))


def difference(
    spec: TensorSpec, began_from: torch.Tensor, trained: torch.Tensor, start: int, stop: int
) -> Floats:
    """The same for a training that began elsewhere than at the base."""
    return _way(spec, _floats(began_from, start, stop), _floats(trained, start, stop))


def _way(spec: TensorSpec, began_from: Floats, trained: Floats) -> Floats:
    way = began_from - trained
    if not within_magnitude(way):
        raise WorkerError(f"training diverged: NaN, infinity or huge numbers in {spec.name}")
    return way


def _floats(tensor: torch.Tensor, start: int, stop: int) -> Floats:
    return model_block(tensor, start, stop).astype(np.float32, copy=False)
