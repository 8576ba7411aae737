"""Checkpoints: the last states, as files that are whole or not there.

Invariants: a checkpoint's file name has its round and its Merkle root, and it is used only if its
bytes have that root; it comes to its name whole; a bad one is put aside and the one before it used.
It is synced beside the next round, and older ones are deleted only then: a process that is killed
leaves the newest, a power cut perhaps the one before it, or where the disk is slower than the
rounds one up to three before it. Where the disk takes no more, the new state lives in memory, the
old files stay, and the reason is told.
"""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

from ml.state.blob import KEPT_CHECKPOINTS, Blob
from ml.state.late_sync import LateSync
from ml.state.manifest import Manifest
from ml.state.state import State, fill_from_file, state_layout
from ml.state.tensor_file import TensorFile, TensorLayout
from ml.state.tensor_store import Fill, hash_chunks, write_tensors
from protocol.errors import ConfigError, VerificationError
from protocol.merkle import merkle_root

_FILE_NAME = re.compile(r"round-(\d{8,})-([0-9a-f]{64})\.safetensors")
_QUARANTINED = ".corrupt"
MOST_BEHIND = 2
"""States beside those that are kept, which are there since a newer one is not synced yet. So none
is lost of more rounds than a peer knows its votes of (daemon/rounds/agreement/vote_book.py)."""

logger = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoints of one swarm's model in one directory.

    >>> import tempfile
    >>> import numpy as np
    >>> from ml.state.manifest import TensorSpec
    >>> manifest = Manifest((TensorSpec("w", "F32", (2,), "parameter"),))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     store = CheckpointStore(Path(directory), manifest, keeps_momentum=False)
    ...     for number in (1, 2):
    ...         values = np.float32([number, number])
    ...         store.save(number, lambda sink: sink.write("model/w", 0, values)).close()
    ...     state = store.latest()
    ...     print(state.round, state.read(manifest.tensors[0], 0, 2))
    ...     state.close()
    ...     store.close()
    2 [2. 2.]
    """

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        *,
        keeps_momentum: bool,
        kept: int = KEPT_CHECKPOINTS,
        quota_bytes: int = 0,
        on_block: Callable[[], None] = lambda: None,
        sync: LateSync | None = None,
    ) -> None:
        """Makes the directory and deletes what a killed writer left half-written.

        ``kept``: how many of the last states stay there; ``quota_bytes``: what they may take, the
        next one included while it is written (0: no limit; what a restart needs stays);
        ``on_block`` is called after each block of a copy; ``sync`` is closed with the store.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left_over in directory.glob(".*.tmp"):
            left_over.unlink()
        self._directory = directory
        self._manifest = manifest
        self._keeps_momentum = keeps_momentum
        self._kept = max(kept, KEPT_CHECKPOINTS)
        self._quota_bytes = quota_bytes
        self._on_block = on_block
        self._sync = sync or LateSync()
        self.problem = ""
        """Why the last state is in memory only; empty when it is on disk."""

    def layout(self, round_number: int) -> TensorLayout:
        """The layout of a round's state."""
        return state_layout(self._manifest, round_number, keeps_momentum=self._keeps_momentum)

    def save(self, round_number: int, fill: Fill, *, root: bytes | None = None) -> State:
        """Write a round's state, with ``root`` as its digest if that is known beforehand.

        When it is there, deletes those of the same or of later rounds (they belonged to a fork
        that was left), and once it is synced the oldest that are too many. Raises
        :class:`VerificationError` when the root turns out to be another.
        """
        self._wait_for_disk(round_number)
        layout = self.layout(round_number)

        def name_of(found: bytes) -> str:
            if root not in (None, found):
                raise VerificationError(
                    f"state of round {round_number} has the root {found.hex()[:16]}"
                )
            return _file_name(round_number, found)

        written = write_tensors(self._directory, name_of, layout, fill)
        if written.problem:
            self.problem = f"no checkpoint of round {round_number}: {written.problem}"
            logger.error("%s", self.problem)
        else:
            self.problem = ""
            self._leave_fork(round_number, written.blob.root)
            self._sync.add(
                self._directory,
                [written.file.descriptor],
                lambda problem: self._synced(round_number, problem),
            )
        return self._state(round_number, written.blob, written.file)

    def close(self) -> None:
        """Return once the last state is on disk for good."""
        self._sync.close()

    def save_copy(self, round_number: int, source: Path, root: bytes) -> State:
        """Take over a state's file that came from elsewhere.

        Raises :class:`VerificationError` when it is not such a state, not finite, or of another
        root.
        """
        with TensorFile.open(source, self.layout(round_number)) as file:
            return self.save(round_number, fill_from_file(file, self._on_block), root=root)

    def latest(self) -> State | None:
        """The newest checkpoint that is whole; None if there is none. Bad ones are put aside.

        Raises :class:`ConfigError` when a whole one is of another model.
        """
        self._sync.wait()
        for round_number, root, path in self._checkpoints():
            state = self._open(round_number, root, path)
            if state is not None:
                return state
        return None

    def find(self, round_number: int) -> State:
        """The state of a round that is kept. Raises :class:`ConfigError` for any other."""
        self._sync.wait()
        for number, root, path in self._checkpoints():
            if number == round_number:
                state = self._open(number, root, path)
                if state is not None:
                    return state
        rounds = ", ".join(str(number) for number, _, _ in reversed(self._checkpoints()))
        others = f"there are those of {rounds}" if rounds else "there is none at all"
        raise ConfigError(f"no checkpoint of round {round_number}; {others}")

    def _open(self, round_number: int, root: bytes, path: Path) -> State | None:
        """A checkpoint that is whole; a bad one is put aside. Raises :class:`ConfigError`."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            leaves = hash_chunks(descriptor)
        finally:
            os.close(descriptor)
        if merkle_root(leaves) != root:
            self._quarantine(path)
            return None
        layout = self.layout(round_number)
        try:
            file = TensorFile.open(path, layout)
        except VerificationError as error:
            raise ConfigError(
                f"{path} is a checkpoint of another model or other settings ({error});"
                " use another state directory or move it away"
            ) from error
        return self._state(round_number, Blob(str(path), layout.size_bytes, root, leaves), file)

    def _state(self, round_number: int, blob: Blob, file: TensorFile) -> State:
        has_momentum = self._keeps_momentum and round_number > 0
        return State(self._manifest, round_number, has_momentum, blob, file)

    def _checkpoints(self) -> list[tuple[int, bytes, Path]]:
        """Round, root and path of each, the newest first."""
        found = []
        for path in self._directory.iterdir():
            if match := _FILE_NAME.fullmatch(path.name):
                found.append((int(match[1]), bytes.fromhex(match[2]), path))
        return sorted(found, reverse=True)

    def _leave_fork(self, round_number: int, root: bytes) -> None:
        for other_round, other_root, path in self._checkpoints():
            if other_round >= round_number and (other_round, other_root) != (round_number, root):
                path.unlink(missing_ok=True)

    def _synced(self, round_number: int, problem: str) -> None:
        """In the syncing thread: a round's state is on disk, or why not."""
        try:
            if not problem:
                older = [path for number, _, path in self._checkpoints() if number < round_number]
                for path in older[self._most_kept(round_number) - 1 :]:
                    path.unlink(missing_ok=True)
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            self.problem = f"the checkpoint of round {round_number} may be lost: {problem}"
            logger.error("%s", self.problem)

    def _wait_for_disk(self, round_number: int) -> None:
        """Let a disk that is slower than the rounds come after them, as soon as it is too many
        states behind; and where a fork is left, lest what comes after its last state's sync takes
        the new state for an older one."""
        there = self._checkpoints()
        behind = 0 if self._quota_bytes else MOST_BEHIND
        leaves_fork = bool(there) and there[0][0] >= round_number
        if leaves_fork or len(there) > self._most_kept(round_number) + behind:
            self._sync.wait()

    def _most_kept(self, round_number: int) -> int:
        if not self._quota_bytes:
            return self._kept
        # One more is there while the next one is written.
        within = self._quota_bytes // self.layout(round_number).size_bytes - 1
        return max(KEPT_CHECKPOINTS, min(self._kept, within))

    def _quarantine(self, path: Path) -> None:
        logger.error("checkpoint %s is damaged; put aside, the one before it is used", path.name)
        for older in self._directory.glob(f"*{_QUARANTINED}"):
            older.unlink()
        path.rename(path.with_name(path.name + _QUARANTINED))


def _file_name(round_number: int, root: bytes) -> str:
    return f"round-{round_number:08d}-{root.hex()}.safetensors"
