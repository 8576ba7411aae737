"""Writing tensor files: atomically to a disk, or into memory where the disk takes no more.

>>> import numpy as np
>>> from ml.state.tensor_file import FileTensor, layout_of
>>> layout = layout_of([FileTensor("w", "F32", (2,))], {"format": "example"})
>>> blob, file = write_to_memory(layout, lambda sink: sink.write("w", 0, np.float32([1, 2])))
>>> file.read("w"), blob.root == merkle_root(blob.leaves)
(array([1., 2.], dtype=float32), True)
>>> file.close()
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ml.state.blob import Blob
from ml.state.late_sync import sync_directory
from ml.state.tensor_file import TensorFile, TensorLayout, TensorSink, TensorWriter
from protocol.merkle import CHUNK_BYTES, leaf_hash, merkle_root

Fill = Callable[[TensorSink], None]
"""Writes all tensors; may be called again where the first try met a full disk."""


class Written(NamedTuple):
    """A file that was written, still open."""

    blob: Blob
    file: TensorFile
    problem: str
    """Why it is in memory only; empty for a file on disk."""


def write_tensors(
    directory: Path, name_of: Callable[[bytes], str], layout: TensorLayout, fill: Fill
) -> Written:
    """Write a file atomically, or hold it in memory where the disk fails (full, read-only, gone).

    ``name_of`` makes the file's name from its Merkle root, and may raise to have it dropped. The
    file outlives the process; it is the caller's to have it synced (ml/state/late_sync.py).
    """
    try:
        blob, file = write_to_disk(directory, name_of, layout, fill, synced=False)
        return Written(blob, file, "")
    except OSError as error:
        blob, file = write_to_memory(layout, fill)
        try:
            name_of(blob.root)
        except BaseException:
            file.close()
            raise
        return Written(blob, file, error.strerror or str(error))


def write_to_disk(
    directory: Path,
    name_of: Callable[[bytes], str],
    layout: TensorLayout,
    fill: Fill,
    *,
    synced: bool = True,
) -> tuple[Blob, TensorFile]:
    """At the file's name there is a whole file or none; also after a power cut, if it is
    ``synced``.

    Raises :class:`OSError`.
    """
    temporary = directory / f".{os.getpid()}-{os.urandom(8).hex()}.tmp"
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        leaves = _fill(descriptor, layout, fill)
        if synced:
            os.fsync(descriptor)
        root = merkle_root(leaves)
        path = directory / name_of(root)
        os.rename(temporary, path)
        if synced:
            sync_directory(directory)
    except BaseException:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)
        raise
    return Blob(str(path), layout.size_bytes, root, leaves), TensorFile(descriptor, layout)


def write_to_memory(layout: TensorLayout, fill: Fill) -> tuple[Blob, TensorFile]:
    """A file that ends with this process, or when it is closed.

    Other processes of the same user can open it by its path meanwhile.
    """
    descriptor = os.memfd_create("p2pd-tensors", os.MFD_CLOEXEC)
    try:
        leaves = _fill(descriptor, layout, fill)
    except BaseException:
        os.close(descriptor)
        raise
    path = f"/proc/{os.getpid()}/fd/{descriptor}"
    blob = Blob(path, layout.size_bytes, merkle_root(leaves), leaves)
    return blob, TensorFile(descriptor, layout)


def hash_chunks(descriptor: int) -> tuple[bytes, ...]:
    """The Merkle leaves of a whole file."""
    leaves: list[bytes] = []
    while chunk := os.pread(descriptor, CHUNK_BYTES, len(leaves) * CHUNK_BYTES):
        leaves.append(leaf_hash(chunk))
    return tuple(leaves)


def _fill(descriptor: int, layout: TensorLayout, fill: Fill) -> tuple[bytes, ...]:
    with TensorWriter(descriptor, layout) as writer:
        fill(writer)
        return writer.finish()
