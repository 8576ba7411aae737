"""A file of all that a model has: what is trained, out of an export, and the tensors that training
leaves as they are, out of the script's own model. The format is safetensors'.

Invariants: the file appears whole or not at all, under a name that was free or a plain file's; what
is read into memory at once is one tensor at most.
"""

import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch

from p2pd.script.errors import SwarmError
from p2pd.what_travels import DTYPE_NAMES, blocks_of, bytes_of

HEADER_LENGTH = struct.Struct("<Q")
ALIGNMENT_BYTES = 8
CHUNK_BYTES = 1 << 20
_SIZES = {name: dtype.itemsize for dtype, name in DTYPE_NAMES.items()}


class Entry(NamedTuple):
    """One tensor of a file."""

    dtype: str
    """As safetensors has it."""
    shape: tuple[int, ...]
    begin: int
    """Where it lies in the file."""
    end: int


def read_header(file: BinaryIO) -> tuple[dict[str, str], dict[str, Entry]]:
    """The metadata and the tensors of an export, which is p2pd's own."""
    (length,) = HEADER_LENGTH.unpack(file.read(HEADER_LENGTH.size))
    header = json.loads(file.read(length))
    metadata: dict[str, str] = header.pop("__metadata__", {})
    start = HEADER_LENGTH.size + length
    return metadata, {
        name: Entry(
            one["dtype"], tuple(one["shape"]), *(start + offset for offset in one["data_offsets"])
        )
        for name, one in header.items()
    }


def entry_of(name: str, tensor: torch.Tensor) -> tuple[str, tuple[int, ...]]:
    """Dtype and shape, as a file has them. Raises :class:`SwarmError` for what it cannot hold."""
    if tensor.dtype not in DTYPE_NAMES:
        raise SwarmError(f"{name} is of {tensor.dtype}, which p2pd does not write")
    return DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)


class WholeFile:
    """One that is being written; made by :func:`whole_file`."""

    def __init__(self, file: BinaryIO, entries: Mapping[str, Entry]) -> None:
        self._file = file
        self._entries = entries

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Write one tensor. Raises :class:`OSError`."""
        self._file.seek(self._entries[name].begin)
        for block in blocks_of(tensor):
            self._file.write(bytes_of(block))

    def copy(self, name: str, source: BinaryIO, begin: int) -> None:
        """Write one whose bytes are in ``source`` from there on. Raises :class:`OSError`."""
        entry = self._entries[name]
        for offset in range(0, entry.end - entry.begin, CHUNK_BYTES):
            source.seek(begin + offset)
            data = source.read(min(CHUNK_BYTES, entry.end - entry.begin - offset))
            self._file.seek(entry.begin + offset)
            self._file.write(data)

    def repeat(self, name: str, under: str) -> None:
        """Write one that is there already under its further name too. Raises :class:`OSError`."""
        self.copy(under, self._file, self._entries[name].begin)


@contextmanager
def whole_file(
    path: Path,
    export: Callable[[Path], object],
    still: Mapping[str, tuple[str, tuple[int, ...]]],
    tied: Mapping[str, str],
) -> Iterator[WholeFile]:
    """A file that has what ``export`` writes; the caller adds the tensors ``still``.

    ``still``: dtype and shape by name; ``tied``: every further name of a tensor, and its first one.
    Raises :class:`SwarmError` and :class:`OSError`.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise SwarmError(f"{path} is no plain file: give a name of your own")
    with tempfile.TemporaryDirectory(prefix=".p2pd-save-", dir=target.parent) as directory:
        trained = Path(directory) / "trained"
        export(trained)
        with trained.open("rb") as source, (Path(directory) / "whole").open("w+b") as file:
            metadata, sources = read_header(source)
            kinds = {name: (one.dtype, one.shape) for name, one in sources.items()} | dict(still)
            kinds |= {further: kinds[first] for further, first in tied.items()}
            header, entries = _laid_out(metadata, kinds)
            file.write(header)
            whole = WholeFile(file, entries)
            for name, one in sources.items():
                whole.copy(name, source, one.begin)
            yield whole
            for further, first in tied.items():
                whole.repeat(first, further)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(target)


def _laid_out(
    metadata: Mapping[str, str], kinds: Mapping[str, tuple[str, tuple[int, ...]]]
) -> tuple[bytes, dict[str, Entry]]:
    """The head of a file, and the place of each tensor: those of the longest elements first, so
    that each is aligned."""
    places: dict[str, Entry] = {}
    end = 0
    for name, (dtype, shape) in sorted(kinds.items(), key=lambda one: (-_SIZES[one[1][0]], one[0])):
        begin, end = end, end + _SIZES[dtype] * torch.Size(shape).numel()
        places[name] = Entry(dtype, shape, begin, end)
    header = json.dumps(
        {"__metadata__": metadata}
        | {
            name: {"dtype": one.dtype, "shape": one.shape, "data_offsets": [one.begin, one.end]}
            for name, one in places.items()
        }
    ).encode()
    header += b" " * (-len(header) % ALIGNMENT_BYTES)
    start = HEADER_LENGTH.size + len(header)
    entries = {
        name: one._replace(begin=start + one.begin, end=start + one.end)
        for name, one in places.items()
    }
    return HEADER_LENGTH.pack(len(header)) + header, entries
