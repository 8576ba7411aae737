"""Merkle tree over chunks of 1 MiB: each chunk is verified as it comes, from whoever has it.

Leaf and node hashes are told apart by a prefix byte and an odd node goes up unchanged (RFC 6962
section 2.1), so a leaf cannot be passed off as a node.

The sender signs the root and sends the leaves along. The reader compares them with the root, and
then each chunk with its leaf:

>>> leaves = leaves_of([bytes(CHUNK_BYTES), b"the rest"])
>>> root = merkle_root(leaves)
>>> merkle_root(leaves) == root and leaf_hash(b"the rest") == leaves[1]
True
>>> leaf_hash(b"a false rest") == leaves[1]
False
>>> chunk_count(CHUNK_BYTES + 8), chunk_size(CHUNK_BYTES + 8, index=1)
(2, 8)
"""

import hashlib
from collections.abc import Iterable, Sequence

CHUNK_BYTES = 1 << 20
DIGEST_BYTES = 32
MAX_CHUNKS = 1 << 14
"""16 GiB a blob; the leaf list is then 512 KiB and still fits one message."""


def begin_leaf() -> "hashlib._Hash":
    """The hash of a chunk, to be updated with its bytes."""
    return hashlib.sha256(b"\x00")


def leaf_hash(chunk: bytes | memoryview) -> bytes:
    """The hash of one chunk of at most :data:`CHUNK_BYTES`."""
    digest = begin_leaf()
    digest.update(chunk)
    return digest.digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root over ``leaves`` (their hashes, in order); the hash of nothing for none."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = list(leaves)
    while len(level) > 1:
        parents = [
            hashlib.sha256(b"\x01" + left + right).digest()
            for left, right in zip(level[::2], level[1::2], strict=False)
        ]
        if len(level) % 2:
            parents.append(level[-1])
        level = parents
    return level[0]


def leaves_of(chunks: Iterable[bytes | memoryview]) -> list[bytes]:
    """The leaf hashes of ``chunks`` in order."""
    return [leaf_hash(chunk) for chunk in chunks]


def chunk_count(size_bytes: int) -> int:
    """How many chunks a blob of ``size_bytes`` has."""
    return -(-size_bytes // CHUNK_BYTES)


def chunk_size(size_bytes: int, index: int) -> int:
    """The size in bytes of chunk ``index`` of a blob of ``size_bytes``."""
    return min(CHUNK_BYTES, size_bytes - index * CHUNK_BYTES)
