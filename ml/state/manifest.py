"""The model manifest: which tensors a model has. Peers compare its digest; no tensor is believed
that does not fit it.
"""

import hashlib
import math
from typing import Literal

from protocol.codec import Message, encode


class TensorSpec(Message):
    """One tensor of the model."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: Literal["parameter", "buffer"]

    @property
    def is_float(self) -> bool:
        """Float tensors are float32 in states and updates, whatever the model computes with."""
        return self.dtype in ("F64", "F32", "F16", "BF16")

    @property
    def has_momentum(self) -> bool:
        """Whether the outer optimizer keeps a momentum for it."""
        return self.is_float and self.kind == "parameter"

    @property
    def element_count(self) -> int:
        """How many numbers it holds.

        >>> TensorSpec("weight", "F32", (3, 4), "parameter").element_count
        12
        """
        return math.prod(self.shape)


class Manifest(Message):
    """All tensors of a model, sorted by name; tied tensors once, under the first of their names."""

    tensors: tuple[TensorSpec, ...]

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical encoding."""
        return hashlib.sha256(b"p2pd manifest v1\x00" + encode(self)).digest()

    @property
    def parameter_count(self) -> int:
        """How many numbers the model learns."""
        return sum(spec.element_count for spec in self.tensors if spec.kind == "parameter")

    def as_text(self) -> str:
        """A table for people, one tensor a line."""
        width = max((len(spec.name) for spec in self.tensors), default=0)
        lines = [
            f"{spec.name:{width}}  {spec.dtype:4}  {spec.kind:9}  {list(spec.shape)}"
            for spec in self.tensors
        ]
        count = f"{len(self.tensors)} tensors, {self.parameter_count:,} parameters"
        return "\n".join([*lines, count, f"digest {self.digest.hex()}"])


def file_dtype(spec: TensorSpec) -> str:
    """The dtype of ``spec`` in states and updates: float32 for every float, its own otherwise."""
    return "F32" if spec.is_float else spec.dtype
