"""The model manifest: which tensors a model has. Peers compare its digest; no tensor is believed
that does not fit it.

What training leaves as it is does not travel: it stands in the manifest with its digest, so peers
have the same manifest only if they have the same base under what they train.
"""

import hashlib
import math
from typing import Literal

from protocol.codec import Message, encode

FROZEN_PREFIX_BYTES = 8


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


class FrozenTensor(Message):
    """A tensor that does not travel, since training leaves it as it is."""

    name: str
    dtype: str
    """As torch spells it: what does not travel may be of any dtype."""
    shape: tuple[int, ...]
    sha256: bytes
    """Of its elements in their order."""

    @property
    def prefix(self) -> bytes:
        """What swarm statements, which are small, have of the digest."""
        return self.sha256[:FROZEN_PREFIX_BYTES]


class Manifest(Message):
    """All tensors of a model, sorted by name; tied tensors once, under the first of their names."""

    tensors: tuple[TensorSpec, ...]
    """Those that travel."""
    frozen: tuple[FrozenTensor, ...] = ()
    """Those that peers only compare."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical encoding."""
        # Where nothing is frozen it is what it was before there was anything to say of that.
        content = encode(self) if self.frozen else encode(_OnlyTensors(self.tensors))
        return hashlib.sha256(b"p2pd manifest v1\x00" + content).digest()

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
        if self.frozen:
            frozen_count = sum(math.prod(one.shape) for one in self.frozen)
            count += (
                f"; {len(self.frozen)} more stay as they are and do not travel"
                f" ({frozen_count:,} numbers)"
            )
        return "\n".join([*lines, count, f"digest {self.digest.hex()}"])


class _OnlyTensors(Message):
    tensors: tuple[TensorSpec, ...]


def file_dtype(spec: TensorSpec) -> str:
    """The dtype of ``spec`` in states and updates: float32 for every float, its own otherwise."""
    return "F32" if spec.is_float else spec.dtype
