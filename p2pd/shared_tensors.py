"""A model's tensors in memory that processes share (memfd_create(2)), one after another.

Three such memories belong to a peer, made by the daemon, so that they outlive either process:

- *base*: the state that the next round begins from; the averager writes, the trainer reads;
- *local*: what the training came to; the trainer writes, the averager reads;
- *origin*: where that training began, if that was not the base; the averager writes it beforehand
  where training has to go on from what updates left over, with overlap the trainer does.

Each begins with :data:`HEAD`; then come the tensors in the manifest's order, each at a multiple of
:data:`ALIGNMENT_BYTES`. Floats lie there as float32, everything else as it is, little-endian.

Invariants: nobody maps the memory, it is read and written by pread(2) and pwrite(2), so that a
process that shortens it, or dies over it, harms nobody else; the generation in the head is odd
while somebody writes, and another one afterwards, so that a reader knows whether what it has read
is whole and of one piece.
"""

import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

MAGIC = b"p2pdten1"
HEAD = struct.Struct("<8sQQ32s8x")
ALIGNMENT_BYTES = 64
ROOT_BYTES = 32
NO_ROOT = bytes(ROOT_BYTES)
"""The root of tensors that are no state, such as those that are only tried."""

MEMORIES = ("base", "local", "origin")
"""The memories, in the order in which their descriptors are handed over."""

FLOATS = ("F64", "F32", "F16", "BF16")
_SIZES = {"F32": 4, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class StaleMemoryError(Exception):
    """The memory does not hold what was looked for, or was written meanwhile."""


class Place(NamedTuple):
    """The place of a tensor."""

    dtype: str
    """The type in this memory: float32 for every float."""
    offset: int
    size_bytes: int


class SharedLayout:
    """The place of each tensor of a model.

    >>> layout = SharedLayout([("weight", "F16", (3, 4)), ("steps", "I64", ())])
    >>> layout.places["steps"]
    Place(dtype='I64', offset=128, size_bytes=8)
    """

    def __init__(self, tensors: Sequence[tuple[str, str, Sequence[int]]]) -> None:
        """``tensors``: name, dtype and shape of each, in the manifest's order."""
        places: dict[str, Place] = {}
        end = HEAD.size
        for name, dtype, shape in tensors:
            stored = "F32" if dtype in FLOATS else dtype
            count = 1
            for length in shape:
                count *= length
            offset = -(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
            places[name] = Place(stored, offset, count * _SIZES[stored])
            end = offset + places[name].size_bytes
        self.places: Mapping[str, Place] = places
        self.size_bytes = end


class SharedTensors:
    """One of the memories."""

    def __init__(self, descriptor: int) -> None:
        """Does not close ``descriptor``."""
        self._descriptor = descriptor

    @contextmanager
    def writing(
        self, layout: SharedLayout, round_number: int, root: bytes | Callable[[], bytes]
    ) -> Iterator[None]:
        """Write the tensors inside; what they are is said once all of them are there.

        ``root``: or who knows it by then. Raises :class:`OSError` where the machine has no memory
        left.
        """
        generation = self._generation() | 1
        self._write_head(generation, round_number, NO_ROOT)
        if os.fstat(self._descriptor).st_size < layout.size_bytes:
            os.posix_fallocate(self._descriptor, 0, layout.size_bytes)
        yield
        self._write_head(generation + 1, round_number, root if isinstance(root, bytes) else root())

    @contextmanager
    def reading(self, round_number: int, root: bytes) -> Iterator[None]:
        """Read the tensors of a state inside.

        Raises :class:`StaleMemoryError` when the memory holds another, also at the end: then what
        was read is of no use.
        """
        before = self._check(round_number, root)
        yield
        if self._check(round_number, root) != before:
            raise StaleMemoryError("the memory was written while it was read")

    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` (of bytes) from the memory."""
        while buffer:
            count = os.preadv(self._descriptor, [buffer], offset)
            if not count:
                raise StaleMemoryError("the memory ends before its tensors do")
            buffer, offset = buffer[count:], offset + count

    def write(self, offset: int, data: memoryview) -> None:
        """Put ``data`` (bytes) into the memory."""
        while data:
            count = os.pwrite(self._descriptor, data, offset)
            data, offset = data[count:], offset + count

    def _generation(self) -> int:
        head = os.pread(self._descriptor, HEAD.size, 0)
        if len(head) < HEAD.size:
            return 0
        return int(HEAD.unpack(head)[1])

    def _check(self, round_number: int, root: bytes) -> int:
        head = os.pread(self._descriptor, HEAD.size, 0)
        if len(head) < HEAD.size:
            raise StaleMemoryError("the memory is empty")
        magic, generation, round_there, root_there = HEAD.unpack(head)
        if magic != MAGIC or generation % 2:
            raise StaleMemoryError("the memory is being written")
        if (round_there, root_there) != (round_number, root):
            raise StaleMemoryError(
                f"the memory holds round {round_there}, {root_there.hex()[:16]}, and not round"
                f" {round_number}, {root.hex()[:16]}"
            )
        return int(generation)

    def _write_head(self, generation: int, round_number: int, root: bytes) -> None:
        os.pwrite(self._descriptor, HEAD.pack(MAGIC, generation, round_number, root), 0)
