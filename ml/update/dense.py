"""The dense encodings: float32, float16, and int8 with a scale for every 256 numbers."""

import numpy as np

from ml.state.tensor_file import AnyArray
from ml.update.encoding import Floats, checked

INT8_BLOCK_ELEMENTS = 256
_SCALE_BYTES = 4
_LARGEST_HALF = 65504.0


class Float32Encoding:
    """The numbers as they are."""

    wire_dtype = "F32"
    block_elements = 1
    residual_decay = None

    def wire_count(self, count: int) -> int:
        """One number on the wire for each value."""
        return count

    def encode(self, values: Floats) -> AnyArray:
        """The values themselves."""
        return values

    def decode(self, wire: AnyArray, count: int) -> Floats:
        """The numbers themselves, checked to be finite."""
        return checked(wire.astype(np.float32, copy=False))


class Float16Encoding:
    """Half precision: 2 bytes a number; larger ones are cut to 65504."""

    wire_dtype = "F16"
    block_elements = 1
    residual_decay = 1.0

    def wire_count(self, count: int) -> int:
        """One number on the wire for each value."""
        return count

    def encode(self, values: Floats) -> AnyArray:
        """The values rounded to half precision (to nearest, ties to even)."""
        return np.clip(values, -_LARGEST_HALF, _LARGEST_HALF).astype("<f2")

    def decode(self, wire: AnyArray, count: int) -> Floats:
        """The values in float32, exactly as they were sent."""
        return checked(wire.astype(np.float32))


class Int8Encoding:
    """Per block of 256 numbers: a float32 scale, then a signed byte each (the last block short)."""

    wire_dtype = "U8"
    block_elements = INT8_BLOCK_ELEMENTS
    residual_decay = 1.0

    def wire_count(self, count: int) -> int:
        """One byte a number and four a block."""
        return count + _SCALE_BYTES * -(-count // INT8_BLOCK_ELEMENTS)

    def encode(self, values: Floats) -> AnyArray:
        """Each block's largest number becomes 127."""
        blocks = _in_rows(values, INT8_BLOCK_ELEMENTS)
        scales = (np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)).astype("<f4")
        divisors = np.where(scales > 0, scales, np.float32(1))
        steps = np.clip(np.rint(blocks / divisors), -127, 127).astype(np.int8)
        wire = np.concatenate([scales.view(np.uint8), steps.view(np.uint8)], axis=1)
        return wire.reshape(-1)[: self.wire_count(values.size)]

    def decode(self, wire: AnyArray, count: int) -> Floats:
        """Scale times byte."""
        rows = _in_rows(wire, _SCALE_BYTES + INT8_BLOCK_ELEMENTS)
        scales = np.ascontiguousarray(rows[:, :_SCALE_BYTES]).view("<f4")
        steps = rows[:, _SCALE_BYTES:].view(np.int8)
        return (checked(scales) * steps).astype(np.float32, copy=False).reshape(-1)[:count]


def _in_rows(values: AnyArray, width: int) -> AnyArray:
    """``values`` in rows of ``width``, the last one filled up with zeros."""
    rows = -(-values.size // width)
    padded = np.zeros(rows * width, values.dtype)
    padded[: values.size] = values
    return padded.reshape(rows, width)
