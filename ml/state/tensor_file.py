"""Tensors in files: safetensors in one canonical form, so equal tensors give equal bytes.

Invariants: the form leaves no choice (order, header spelling, padding), so from the layout that the
model's manifest demands follow the header, every offset and the size of the file. A file is read
only if its size and its header are the expected ones, byte by byte; nothing in a foreign header is
ever interpreted, and nothing is allocated by what a file claims. Readers and writers go tensor by
tensor, block by block (pread and pwrite), so no model has to fit into memory twice.
"""

import json
import os
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ml.state.chunk_hashes import ChunkHashes
from ml.state.header_report import explain_difference
from protocol.errors import VerificationError

ALIGNMENT_BYTES = 8
_LENGTH_BYTES = 8
WORTH_A_THREAD_BYTES = 4 << 20
MAX_BEHIND = 4
"""Blocks that are made and not yet in the file: 4 MiB of float32."""

AnyArray = NDArray[np.generic]


NUMPY_DTYPES: Mapping[str, DTypeLike] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
"""How tensors lie in files. NumPy has no BF16; its bits stand as integers (in exports only)."""


def numpy_dtype(name: str) -> np.dtype[np.generic]:
    """The NumPy dtype of a safetensors dtype, little-endian as in files."""
    return np.dtype(NUMPY_DTYPES[name])


@dataclass(frozen=True, slots=True)
class FileTensor:
    """One tensor in a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def element_count(self) -> int:
        """How many numbers it holds."""
        return int(np.prod(self.shape, dtype=object))

    @property
    def size_bytes(self) -> int:
        """How long it is in the file."""
        return self.element_count * numpy_dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """The places of all tensors in a file. Made by :func:`layout_of`."""

    tensors: Mapping[str, FileTensor]
    offsets: Mapping[str, int]
    """The offset of each tensor's first byte in the file."""
    header: bytes = field(repr=False)
    """Everything before the first tensor: length, JSON, padding."""
    size_bytes: int


def layout_of(tensors: Iterable[FileTensor], metadata: Mapping[str, str]) -> TensorLayout:
    """The canonical layout of ``tensors``: wide dtypes first, so that each is aligned to itself,
    otherwise in the order given.
    """
    ordered = sorted(tensors, key=lambda tensor: -numpy_dtype(tensor.dtype).itemsize)
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    starts = {}
    end = 0
    for tensor in ordered:
        if tensor.name in entries:
            raise ValueError(f"two tensors of the name {tensor.name!r}")
        start, end = end, end + tensor.size_bytes
        starts[tensor.name] = start
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT_BYTES)
    header = len(text).to_bytes(_LENGTH_BYTES, "little") + text
    return TensorLayout(
        tensors={tensor.name: tensor for tensor in ordered},
        offsets={name: len(header) + start for name, start in starts.items()},
        header=header,
        size_bytes=len(header) + end,
    )


class TensorFile:
    """An open file whose header was found to be that of its layout. A context manager."""

    def __init__(self, descriptor: int, layout: TensorLayout) -> None:
        """Use :meth:`open`; takes over ``descriptor``."""
        self.descriptor = descriptor
        self.layout = layout

    @classmethod
    def open(cls, path: Path, layout: TensorLayout) -> "TensorFile":
        """Raises :class:`VerificationError` saying how the file differs from ``layout``."""
        file = cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC), layout)
        try:
            size_bytes = os.fstat(file.descriptor).st_size
            head = os.pread(file.descriptor, len(layout.header), 0)
            if size_bytes != layout.size_bytes or head != layout.header:
                raise VerificationError(
                    explain_difference(file.descriptor, size_bytes, layout.header)
                    or f"file of {size_bytes} bytes, {layout.size_bytes} expected"
                )
        except BaseException:
            file.close()
            raise
        return file

    def read(
        self, name: str, start: int = 0, stop: int | None = None, into: AnyArray | None = None
    ) -> AnyArray:
        """Elements ``start`` to ``stop`` of a tensor, flat; a new array that the caller owns, or
        ``into``, which is as long and of the tensor's dtype.

        Raises :class:`VerificationError` when the file has become shorter.
        """
        tensor = self.layout.tensors[name]
        stop = tensor.element_count if stop is None else stop
        values = np.empty(stop - start, numpy_dtype(tensor.dtype)) if into is None else into
        buffer = values.view(np.uint8).data
        offset = self.layout.offsets[name] + start * values.itemsize
        while len(buffer):
            count = os.preadv(self.descriptor, [buffer], offset)
            if count == 0:
                raise VerificationError(f"file ends within tensor {name}")
            buffer, offset = buffer[count:], offset + count
        return values

    def close(self) -> None:
        """Close the file; nothing can be read any more."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class TensorSink(Protocol):
    """Where tensors are written to."""

    def write(self, name: str, start: int, values: AnyArray) -> None:
        """Put flat ``values`` at element ``start`` of a tensor; nobody may change them afterwards.

        Raises :class:`OSError`, also for a block that was written before.
        """


class TensorWriter(TensorSink):
    """Puts the tensors of one layout into a file, in any order, each element once.

    Writing and hashing are done in a thread of its own while the caller makes the next block, a few
    blocks behind at most. A context manager; leaving it ends that thread.

    >>> import tempfile
    >>> layout = layout_of([FileTensor("w", "F32", (2, 2))], {"format": "example"})
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     with TensorWriter(file.fileno(), layout) as writer:
    ...         writer.write("w", 0, np.float32([1, 2, 3, 4]))
    ...         leaves = writer.finish()
    ...     with TensorFile.open(Path(file.name), layout) as whole:
    ...         whole.read("w", start=1, stop=3)
    array([2., 3.], dtype=float32)
    """

    def __init__(self, descriptor: int, layout: TensorLayout) -> None:
        self.descriptor = descriptor
        self.layout = layout
        self._missing_bytes = layout.size_bytes - len(layout.header)
        self._hashes = ChunkHashes()
        self._behind: deque[Future[None]] = deque()
        self._thread: ThreadPoolExecutor | None = None
        if layout.size_bytes >= WORTH_A_THREAD_BYTES:
            self._thread = ThreadPoolExecutor(1, "tensors")
        os.posix_fallocate(descriptor, 0, layout.size_bytes)
        self._put(memoryview(layout.header), 0)

    def write(self, name: str, start: int, values: AnyArray) -> None:
        """See :class:`TensorSink`."""
        tensor = self.layout.tensors[name]
        dtype = numpy_dtype(tensor.dtype)
        if values.dtype != dtype or start + values.size > tensor.element_count:
            raise ValueError(f"{values.size} {values.dtype} at {start} do not fit tensor {name}")
        data = np.ascontiguousarray(values.reshape(-1)).view(np.uint8).data
        offset = self.layout.offsets[name] + start * dtype.itemsize
        self._missing_bytes -= len(data)
        if self._thread is None:
            self._put(data, offset)
            return
        if len(self._behind) >= MAX_BEHIND:
            self._behind.popleft().result()
        self._behind.append(self._thread.submit(self._put, data, offset))

    def finish(self) -> tuple[bytes, ...]:
        """The Merkle leaves of the file, once all of it is written.

        Raises :class:`OSError`, and :class:`ValueError` unless everything was written.
        """
        while self._behind:
            self._behind.popleft().result()
        if self._missing_bytes:
            raise ValueError(f"{self._missing_bytes} bytes of the tensors were not written")
        return self._hashes.leaves(self.descriptor, self.layout.size_bytes)

    def __enter__(self) -> "TensorWriter":
        return self

    def __exit__(self, *unused: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _put(self, data: memoryview, offset: int) -> None:
        self._hashes.add(data, offset)
        while len(data):
            count = os.pwrite(self.descriptor, data, offset)
            data, offset = data[count:], offset + count
