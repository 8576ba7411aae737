"""The dense encodings: float32, float16, and int8 and int4 with a scale for each block of numbers.

What int8 and int4 round off, error feedback brings in later updates, so int4 loses little (MuLoCo,
arXiv 2505.23725). In all-reduce the averages are rounded once more, and that is lost.

>>> values = np.linspace(-7, 7, 15, dtype=np.float32)
>>> wire = Int4Encoding().encode(values)
>>> wire.size, bool((Int4Encoding().decode(wire, 15) == values).all())
(12, True)
"""

import numpy as np

from ml.state.tensor_file import AnyArray
from ml.update.encoding import Floats, checked

INT8_BLOCK_ELEMENTS = 256
INT4_BLOCK_ELEMENTS = 128
_INT4_ZERO = 8
"""A code stands for its distance from here."""
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
        scales, steps = _scaled(_in_rows(values, INT8_BLOCK_ELEMENTS), 127)
        wire = np.concatenate([scales.view(np.uint8), steps.view(np.uint8)], axis=1)
        return wire.reshape(-1)[: self.wire_count(values.size)]

    def decode(self, wire: AnyArray, count: int) -> Floats:
        """Scale times byte."""
        rows = _in_rows(wire, _SCALE_BYTES + INT8_BLOCK_ELEMENTS)
        scales = np.ascontiguousarray(rows[:, :_SCALE_BYTES]).view("<f4")
        steps = rows[:, _SCALE_BYTES:].view(np.int8)
        return (checked(scales) * steps).astype(np.float32, copy=False).reshape(-1)[:count]


class Int4Encoding:
    """Per block of 128 numbers: a float32 scale, then four bits each (the last block short).

    A byte holds two numbers, the first in its low bits. A code is the number of scales, plus 8.
    """

    wire_dtype = "U8"
    block_elements = INT4_BLOCK_ELEMENTS
    residual_decay = 1.0

    def wire_count(self, count: int) -> int:
        """A byte for two numbers and four bytes a block."""
        return -(-count // 2) + _SCALE_BYTES * -(-count // INT4_BLOCK_ELEMENTS)

    def encode(self, values: Floats) -> AnyArray:
        """Each block's largest number becomes 7."""
        scales, steps = _scaled(_in_rows(values, INT4_BLOCK_ELEMENTS), 7)
        codes = (steps + _INT4_ZERO).astype(np.uint8)
        pairs = codes[:, ::2] | codes[:, 1::2] << 4
        wire = np.concatenate([scales.view(np.uint8), pairs], axis=1)
        return wire.reshape(-1)[: self.wire_count(values.size)]

    def decode(self, wire: AnyArray, count: int) -> Floats:
        """Scale times code."""
        rows = _in_rows(wire, _SCALE_BYTES + INT4_BLOCK_ELEMENTS // 2)
        scales = np.ascontiguousarray(rows[:, :_SCALE_BYTES]).view("<f4")
        pairs = rows[:, _SCALE_BYTES:].view(np.uint8)
        steps = np.empty((len(rows), INT4_BLOCK_ELEMENTS), np.float32)
        steps[:, ::2] = pairs & 15
        steps[:, 1::2] = pairs >> 4
        steps -= _INT4_ZERO
        return (checked(scales) * steps).reshape(-1)[:count]


def _scaled(blocks: AnyArray, largest: int) -> tuple[AnyArray, AnyArray]:
    """Each row's scale, shape (rows, 1), and its numbers in scales, up to ``largest`` of them."""
    scales = (np.abs(blocks).max(axis=1, keepdims=True) / np.float32(largest)).astype("<f4")
    divisors = np.where(scales > 0, scales, np.float32(1))
    return scales, np.clip(np.rint(blocks / divisors), -largest, largest).astype(np.int8)


def _in_rows(values: AnyArray, width: int) -> AnyArray:
    """``values`` in rows of ``width``, the last one filled up with zeros."""
    rows = -(-values.size // width)
    padded = np.zeros(rows * width, values.dtype)
    padded[: values.size] = values
    return padded.reshape(rows, width)
