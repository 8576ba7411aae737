"""The Merkle leaves of a file while it is being written, so that nobody reads it again for them."""

import hashlib
import os

from protocol.merkle import CHUNK_BYTES, begin_leaf, chunk_count, chunk_size, leaf_hash


class ChunkHashes:
    """Of one file, each byte of which is written once.

    A chunk that is written from its first byte to its last is hashed as it goes. One that is
    written in another order is read back once, at the end.
    """

    def __init__(self) -> None:
        self._begun: dict[int, tuple[hashlib._Hash, int]] = {}
        """Of each chunk, what was written of it from its beginning on, and how much that is."""

    def add(self, data: memoryview, offset: int) -> None:
        """``data`` (bytes) is written at ``offset``."""
        while data:
            index, start = divmod(offset, CHUNK_BYTES)
            piece = data[: CHUNK_BYTES - start]
            digest, written = self._begun.get(index) or (begin_leaf(), 0)
            if start == written:
                digest.update(piece)
                self._begun[index] = (digest, written + len(piece))
            data, offset = data[len(piece) :], offset + len(piece)

    def leaves(self, descriptor: int, size_bytes: int) -> tuple[bytes, ...]:
        """All leaves of the file, which is written whole."""
        leaves = []
        for index in range(chunk_count(size_bytes)):
            size = chunk_size(size_bytes, index)
            digest, written = self._begun.get(index) or (begin_leaf(), 0)
            if written == size:
                leaves.append(digest.digest())
            else:
                leaves.append(leaf_hash(os.pread(descriptor, size, index * CHUNK_BYTES)))
        return tuple(leaves)
