"""What a peer contributes to a round: how far its training moved away from the round's base.

>>> spec = TensorSpec("w", "F32", (2,), "parameter")
>>> pseudo_gradient(spec, base=np.float32([1, 2]), trained=np.float32([0.5, 3]))
array([ 0.5, -1. ], dtype=float32)
>>> pseudo_gradient(spec, base=np.float32([1, 2]), trained=np.float32([np.nan, 3]))
Traceback (most recent call last):
protocol.errors.WorkerError: training diverged: NaN, infinity or huge numbers in w
"""

import numpy as np

from ml.state.half_precision import in_model_precision
from ml.state.manifest import TensorSpec
from ml.state.tensor_file import AnyArray
from ml.update.encoding import Floats, within_magnitude
from protocol.errors import WorkerError


def trained_values(spec: TensorSpec, trained: AnyArray) -> AnyArray:
    """A block as the training left it: what gossip sends, and integers always.

    Raises :class:`WorkerError` when the training left numbers that cannot be used.
    """
    if spec.is_float and not within_magnitude(trained):
        raise _diverged(spec)
    return trained


def pseudo_gradient(spec: TensorSpec, base: AnyArray, trained: AnyArray) -> Floats:
    """``base - trained`` for a block of a float tensor (DiLoCo, arXiv 2311.08105, algorithm 1).

    ``base`` is where the training began, which may be elsewhere. It is taken as the model had it:
    where that computes in half precision, the rounding of the base on loading is not part of the
    update. Raises :class:`WorkerError` when the training left numbers that cannot be used.
    """
    began = in_model_precision(spec, base).astype(np.float32, copy=False)
    way = began - trained.astype(np.float32, copy=False)
    if not within_magnitude(way):
        raise _diverged(spec)
    return way


def _diverged(spec: TensorSpec) -> WorkerError:
    return WorkerError(f"training diverged: NaN, infinity or huge numbers in {spec.name}")
