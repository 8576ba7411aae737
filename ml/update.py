"""What a peer contributes to a round: how far its training moved away from the round's base."""

import torch

from ml.encoding import Floats, within_magnitude
from ml.manifest import TensorSpec
from ml.state import State, model_block
from ml.tensor_file import AnyArray
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
    begin = torch.from_numpy(base.read(spec, start, stop)).to(trained.dtype).to(torch.float32)
    difference: Floats = begin.numpy() - model_block(trained, start, stop)
    if not within_magnitude(difference):
        raise WorkerError(f"training diverged: NaN, infinity or huge numbers in {spec.name}")
    return difference
