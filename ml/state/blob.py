"""A file with model bytes, as everything outside of this package knows it."""

from protocol.codec import Message

CHECKPOINTS = "checkpoints"
"""The directory of the states, in a peer's own."""
OWN_UPDATES = "spool"
"""The directory of the updates that this peer made."""
KEPT_CHECKPOINTS = 2
"""The states that stay on disk: the present one, and another in case that is damaged."""


class Blob(Message):
    """A file with model bytes and the Merkle tree over its 1 MiB chunks (protocol/merkle.py).

    >>> from protocol.merkle import leaves_of, merkle_root
    >>> content = b"an update's bytes"
    >>> leaves = tuple(leaves_of([content]))
    >>> blob = Blob("spool/update", len(content), merkle_root(leaves), leaves)
    >>> blob.size_bytes, len(blob.leaves)
    (17, 1)
    """

    path: str
    size_bytes: int
    root: bytes
    leaves: tuple[bytes, ...]
