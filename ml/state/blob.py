"""A file with model bytes, as everything outside of this package knows it."""

from protocol.codec import Message

KEPT_CHECKPOINTS = 2
"""The states that stay on disk: the present one, and another in case that is damaged."""


class Blob(Message):
    """A file with model bytes and the Merkle tree over its 1 MiB chunks (protocol/merkle.py)."""

    path: str
    size_bytes: int
    root: bytes
    leaves: tuple[bytes, ...]
