"""This peer's own updates on disk: served to others, and never made twice for one base.

A peer that trained a round again after a crash could come to other bits, and two different updates
of one peer for one round look like a lie. So an update that was written whole is used again.
"""

import logging
import os
import re
from pathlib import Path

import msgspec

from ml.tensor_file import TensorFile, TensorLayout
from ml.tensor_store import Fill, hash_chunks, write_tensors
from ml.train import LocalResult
from ml.worker_messages import Blob
from protocol.codec import Message
from protocol.errors import VerificationError
from protocol.merkle import merkle_root

KEPT_ROUNDS = 3

logger = logging.getLogger(__name__)

_FILE_NAME = re.compile(r"update-(\d{8,})-[0-9a-f]{16}\.(safetensors|json)")


class OwnUpdates:
    """The newest own updates in a directory that others may use too."""

    def __init__(self, directory: Path, layout: TensorLayout) -> None:
        """Makes the directory and deletes what a killed writer left half-written."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left_over in directory.glob(".*.tmp"):
            left_over.unlink()
        self._directory = directory
        self._layout = layout
        self._newest: TensorFile | None = None

    def save(self, round_number: int, base_root: bytes, fill: Fill, result: LocalResult) -> Blob:
        """Write the update of a round on the state with ``base_root``, and what its training was.

        Where the disk is full it is in memory only, and gone with this process.
        """
        self._delete_older(round_number)
        stem = _stem(round_number, base_root)
        written = write_tensors(
            self._directory, lambda root: f"{stem}.safetensors", self._layout, fill
        )
        self._hold(written.file)
        if not written.problem:
            self._note(stem, written.blob.root, result)
        return written.blob

    def find(self, round_number: int, base_root: bytes) -> tuple[Blob, LocalResult] | None:
        """The update that was made before for this round and base, if it is there whole."""
        path = self._directory / f"{_stem(round_number, base_root)}.safetensors"
        try:
            record = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=_Record)
            file = TensorFile.open(path, self._layout)
        except (OSError, msgspec.DecodeError, VerificationError):
            return None
        leaves = hash_chunks(file.descriptor)
        if merkle_root(leaves) != record.root:
            file.close()
            return None
        self._hold(file)
        blob = Blob(str(path), self._layout.size_bytes, record.root, leaves)
        return blob, LocalResult(record.sample_count, record.steps, record.loss, record.seconds)

    def close(self) -> None:
        """Close what is open; an update in memory is gone then."""
        if self._newest is not None:
            self._newest.close()
            self._newest = None

    def _note(self, stem: str, root: bytes, result: LocalResult) -> None:
        record = _Record(root, result.sample_count, result.steps, result.loss, result.seconds)
        temporary = self._directory / f".{stem}.tmp"
        try:
            temporary.write_bytes(msgspec.json.encode(record))
            os.replace(temporary, self._directory / f"{stem}.json")
        except OSError as error:
            logger.warning("update %s would not be found after a restart: %s", stem, error)

    def _hold(self, file: TensorFile) -> None:
        """An update in memory ends when its file is closed."""
        if self._newest is not None:
            self._newest.close()
        self._newest = file

    def _delete_older(self, round_number: int) -> None:
        for path in self._directory.iterdir():
            match = _FILE_NAME.fullmatch(path.name)
            if match and int(match[1]) <= round_number - KEPT_ROUNDS:
                path.unlink()


class _Record(Message):
    root: bytes
    sample_count: int
    steps: int
    loss: float
    seconds: float


def _stem(round_number: int, base_root: bytes) -> str:
    return f"update-{round_number:08d}-{base_root.hex()[:16]}"
