"""Float32 numbers in the precision that a model computes with, bit for bit as torch rounds.

>>> tenth = np.float32([0.1])
>>> in_model_precision(TensorSpec("w", "F16", (1,), "parameter"), tenth)
array([0.09997559], dtype=float32)
>>> in_model_precision(TensorSpec("w", "BF16", (1,), "parameter"), tenth)
array([0.10009766], dtype=float32)
"""

import numpy as np
from numpy.typing import NDArray

from ml.state.manifest import TensorSpec
from ml.state.tensor_file import AnyArray


def in_model_precision(spec: TensorSpec, values: AnyArray) -> NDArray[np.float32]:
    """float32 numbers as the model's dtype has them, as float32 again."""
    floats = values.astype(np.float32, copy=False)
    if spec.dtype == "F16":
        with np.errstate(over="ignore"):
            return floats.astype(np.float16).astype(np.float32)
    if spec.dtype == "BF16":
        bits = to_bfloat16(floats).astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32)
    return floats


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16 numbers, of two the even one, as torch rounds."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = np.where(np.isnan(values), np.uint32(0x7FC00000), rounded)
    return (rounded >> np.uint32(16)).astype(np.uint16)
