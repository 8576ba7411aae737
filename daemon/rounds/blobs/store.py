"""Model bytes on disk, by Merkle root: served chunk by chunk, received chunk by chunk.

Invariants:

- A chunk is written only after its hash matched the tree, whichever thread writes it. So a complete
  blob is what its root says.
- A blob's file stays open while a chunk of it is written.
- A blob is kept while anything uses it: who signs an update of the same bytes as a state takes that
  state from nobody.
- Nothing of a blob stays in the daemon's memory: files are read and written with pread and pwrite,
  and not mapped, since mapped pages count as the daemon's.
"""

import enum
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from ml.state.blob import Blob
from protocol.errors import VerificationError
from protocol.merkle import (
    CHUNK_BYTES,
    DIGEST_BYTES,
    MAX_CHUNKS,
    chunk_count,
    chunk_size,
    leaf_hash,
    merkle_root,
)

KEPT_STATES = 3
"""The present state, and those before it that others may still be fetching."""


class Use(enum.Enum):
    """What a blob is kept for."""

    UPDATE = "update"
    CATCH_UP = "catch-up"
    """It is being fetched, to become this peer's state."""
    STATE = "state"
    """It is this peer's state of one of the last rounds."""


class BlobMissingError(KeyError):
    """This store does not have that blob, or not that chunk."""


@dataclass(slots=True)
class _Stored:
    path: Path
    file: int
    size_bytes: int
    leaves: tuple[bytes, ...]
    uses: set[Use]
    missing: set[int] = field(default_factory=set)
    owned: bool = True
    being_written: int = 0
    """How many chunks are."""
    discarded: bool = False


@dataclass(frozen=True, slots=True)
class IncomingChunk:
    """A chunk that is missing here, between :meth:`BlobStore.begin_chunk` and ``end_chunk``."""

    blob: _Stored
    root: bytes
    index: int
    data: bytes | memoryview

    def write(self) -> None:
        """Check and write it; in any thread.

        Raises :class:`VerificationError` for a chunk that is not what the tree says, and
        :class:`OSError` when the disk is full.
        """
        if leaf_hash(self.data) != self.blob.leaves[self.index]:
            raise VerificationError(f"chunk {self.index} is not what the blob's root promised")
        written = 0
        while written < len(self.data):
            written += os.pwrite(
                self.blob.file,
                memoryview(self.data)[written:],
                self.index * CHUNK_BYTES + written,
            )


class BlobStore:
    """The blobs of one peer. A context manager: leaving it closes files and empties the spool.

    >>> import tempfile
    >>> from protocol.merkle import leaves_of
    >>> leaves = leaves_of([b"tensor bytes"])
    >>> root = merkle_root(leaves)
    >>> with tempfile.TemporaryDirectory() as spool, BlobStore(Path(spool)) as store:
    ...     store.begin(root, 12, leaves, max_bytes=1000, use=Use.UPDATE)
    ...     chunk = store.begin_chunk(root, 0, b"tensor bytes")
    ...     chunk.write()
    ...     store.end_chunk(chunk, is_written=True), store.read_chunk(root, 0)
    (True, b'tensor bytes')
    """

    def __init__(self, spool: Path) -> None:
        """``spool``: directory for incoming blobs; left-overs of an earlier run are deleted."""
        self._spool = spool
        self._blobs: dict[bytes, _Stored] = {}
        self._states: list[bytes] = []

    def __enter__(self) -> "BlobStore":
        self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left_over in self._spool.glob("*.blob"):
            left_over.unlink()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for root in list(self._blobs):
            self._forget(root)

    def add_local(self, blob: Blob, use: Use = Use.UPDATE) -> None:
        """Serve a file that is whole and was hashed by this peer's own worker.

        The file stays open, so its owner may unlink it while it is still being served. Where the
        same bytes have come from another peer, their file stays, since that peer's update is in it.
        """
        known = self._blobs.get(blob.root)
        if known is not None and not known.missing and known.owned:
            known.uses.add(use)
            return
        uses = {use, *self._forget(blob.root)}
        path = Path(blob.path)
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._blobs[blob.root] = _Stored(
            path, file, blob.size_bytes, blob.leaves, uses, owned=False
        )

    def add_state(self, blob: Blob) -> None:
        """Like :meth:`add_local`, for a round's state: it takes the place of the oldest of
        :data:`KEPT_STATES`, which would otherwise keep its file open and its disk space taken."""
        self.add_local(blob, Use.STATE)
        self._states = [*(root for root in self._states if root != blob.root), blob.root]
        while len(self._states) > KEPT_STATES:
            self.discard(self._states.pop(0), Use.STATE)

    def begin(
        self, root: bytes, size_bytes: int, leaves: Sequence[bytes], max_bytes: int, use: Use
    ) -> None:
        """Make room for an incoming blob; only notes the ``use`` when it is known already.

        Raises :class:`VerificationError` when it is larger than ``max_bytes``, the leaves are not
        those of ``root``, or a state is to be used as an update, and :class:`OSError` when the disk
        does not take it.
        """
        known = self._blobs.get(root)
        if known is not None and use is Use.UPDATE and known.uses - {Use.UPDATE}:
            raise VerificationError("an update of the same bytes as a state")
        uses = {use}
        if known is not None and not known.owned and not known.path.exists():
            # Its owner has unlinked it: it was good for serving only.
            uses |= self._forget(root)
        elif known is not None:
            known.uses.add(use)
            return
        if not 0 < size_bytes <= max_bytes:
            raise VerificationError(f"blob of {size_bytes} bytes, at most {max_bytes} allowed")
        count = chunk_count(size_bytes)
        if count != len(leaves) or count > MAX_CHUNKS:
            raise VerificationError(f"{len(leaves)} leaves for a blob of {count} chunks")
        if any(len(leaf) != DIGEST_BYTES for leaf in leaves) or merkle_root(leaves) != root:
            raise VerificationError("leaves that do not belong to the blob's root")
        path = self._spool / f"{root.hex()}.blob"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._blobs[root] = _Stored(path, file, size_bytes, tuple(leaves), uses, set(range(count)))

    def begin_chunk(
        self, root: bytes, index: int, data: bytes | memoryview
    ) -> IncomingChunk | None:
        """A chunk that came, to be written and then ended; None if it is here already.

        Raises :class:`BlobMissingError` for a blob that was not begun, and
        :class:`VerificationError` for a chunk that cannot be of this blob.
        """
        blob = self._find(root)
        if not 0 <= index < len(blob.leaves):
            raise VerificationError(f"chunk {index} of a blob of {len(blob.leaves)} chunks")
        if index not in blob.missing:
            return None
        if len(data) > CHUNK_BYTES:
            raise VerificationError(f"chunk {index} is not what the blob's root promised")
        if index < len(blob.leaves) - 1 and len(data) != CHUNK_BYTES:
            raise VerificationError(f"chunk {index} of {len(data)} bytes is not the last one")
        blob.being_written += 1
        return IncomingChunk(blob, root, index, data)

    def end_chunk(self, chunk: IncomingChunk, *, is_written: bool) -> bool:
        """Note that ``chunk`` was written, or could not be; True when the blob is complete now."""
        blob = chunk.blob
        blob.being_written -= 1
        if blob.discarded:
            self._close(blob)
            return False
        if is_written:
            blob.missing.discard(chunk.index)
            if chunk.index == len(blob.leaves) - 1:
                # The tree says what the bytes are; whoever began the blob only claimed a size.
                blob.size_bytes = chunk.index * CHUNK_BYTES + len(chunk.data)
        return not blob.missing

    def read_chunk(self, root: bytes, index: int) -> bytes:
        """A chunk to be sent. Raises :class:`BlobMissingError`."""
        blob = self._find(root)
        if not 0 <= index < len(blob.leaves) or index in blob.missing:
            raise BlobMissingError(f"chunk {index} of {root.hex()[:16]}")
        return os.pread(blob.file, chunk_size(blob.size_bytes, index), index * CHUNK_BYTES)

    def missing(self, root: bytes) -> frozenset[int]:
        """Chunks of a begun blob that are not here yet. Raises :class:`BlobMissingError`."""
        return frozenset(self._find(root).missing)

    def has_whole(self, root: bytes) -> bool:
        """Whether the blob is here and complete."""
        blob = self._blobs.get(root)
        return blob is not None and not blob.missing

    def path(self, root: bytes) -> Path:
        """The file of a complete blob. Raises :class:`BlobMissingError`."""
        blob = self._find(root)
        if blob.missing:
            raise BlobMissingError(f"{root.hex()[:16]} lacks {len(blob.missing)} chunks")
        return blob.path

    def leaves(self, root: bytes) -> tuple[bytes, ...]:
        """The leaf hashes of a known blob. Raises :class:`BlobMissingError`."""
        return self._find(root).leaves

    def size_bytes(self, root: bytes) -> int:
        """The size of a known blob; as claimed until it is complete.

        Raises :class:`BlobMissingError`.
        """
        return self._find(root).size_bytes

    def discard(self, root: bytes, use: Use) -> bool:
        """It is not used for that any more. Without any use it is forgotten: an incoming one's file
        is deleted, a local one's is its owner's. Whether it is unknown now."""
        blob = self._blobs.get(root)
        if blob is not None:
            blob.uses.discard(use)
            if not blob.uses:
                self._forget(root)
        return root not in self._blobs

    def _forget(self, root: bytes) -> set[Use]:
        """Forget a blob; for what it was used."""
        blob = self._blobs.pop(root, None)
        if blob is None:
            return set()
        blob.discarded = True
        if blob.owned:
            blob.path.unlink(missing_ok=True)
        self._close(blob)
        return blob.uses

    @staticmethod
    def _close(blob: _Stored) -> None:
        """Unless a chunk is being written: its number may be another file's then."""
        if not blob.being_written:
            os.close(blob.file)

    def _find(self, root: bytes) -> _Stored:
        try:
            return self._blobs[root]
        except KeyError:
            raise BlobMissingError(f"blob {root.hex()[:16]} is not here") from None
