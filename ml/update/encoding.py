"""How the float numbers of an update are written: exactly, or smaller and less exactly.

An encoding maps a flat run of float32 to a fixed number of wire elements, block by block, so the
size of an update follows from the manifest alone and any block can be decoded by itself. Decoders
trust nothing: what they return is finite and within :data:`MAX_MAGNITUDE`, or they raise.

>>> from ml.update.codec import parse_encoding
>>> int8, values = parse_encoding("int8"), np.linspace(-1, 1, 1024, dtype=np.float32)
>>> wire = int8.encode(values)
>>> wire.size == int8.wire_count(1024), bool(np.abs(int8.decode(wire, 1024) - values).max() < 0.01)
(True, True)
>>> checked(np.float32([1, np.inf]))
Traceback (most recent call last):
protocol.errors.VerificationError: infinity in the update
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ml.state.tensor_file import AnyArray
from protocol.errors import VerificationError

MAX_MAGNITUDE = 1e12
"""No honest pseudo-gradient has larger numbers; sums of such cannot overflow float32."""

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


class Encoding(Protocol):
    """One way to write float32 numbers."""

    @property
    def wire_dtype(self) -> str:
        """The safetensors dtype of an encoded tensor."""

    @property
    def block_elements(self) -> int:
        """How many numbers are encoded together; a cut elsewhere wastes room."""

    @property
    def residual_decay(self) -> float | None:
        """The factor by which error feedback multiplies the earlier left-over; None: nothing is
        left over. It is 1 where the left-over stays in the peer's own model."""

    def wire_count(self, count: int) -> int:
        """How many wire elements the first ``count`` numbers of a tensor take.

        Where blocks are larger than one number, ``count`` ends a block or the tensor.
        """

    def encode(self, values: Floats) -> AnyArray:
        """The wire elements of ``values``: flat, beginning with a block, within the magnitude."""

    def decode(self, wire: AnyArray, count: int) -> Floats:
        """The ``count`` numbers in ``wire``. Raises :class:`VerificationError`."""


def within_magnitude(values: AnyArray) -> bool:
    """Whether all of ``values`` are numbers up to :data:`MAX_MAGNITUDE`; NaN is not."""
    if values.size == 0:
        return True
    # Two looks, and no copy as the absolute values would be.
    return bool(values.max() <= MAX_MAGNITUDE and values.min() >= -MAX_MAGNITUDE)


def checked(values: Floats) -> Floats:
    """``values``, if they can be used. Raises :class:`VerificationError` naming why not."""
    if not within_magnitude(values):
        if np.isnan(values).any():
            raise VerificationError("NaN in the update")
        if np.isinf(values).any():
            raise VerificationError("infinity in the update")
        raise VerificationError(f"numbers larger than {MAX_MAGNITUDE:g} in the update")
    return values
