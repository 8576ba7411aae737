"""What this peer contributed, in files: served to others, and never made twice for one base.

A peer that trained a round again after a crash could come to other bits, and two different updates
of one peer for one part of the model in one round look like a lie. So each part that was written
whole is used again, and what its training was stands in a note beside it before anybody hears of
it. They are not synced: a power cut takes longer than the round that they are good for.
"""

import logging
import os
import re
from pathlib import Path
from typing import NamedTuple

import msgspec

from ml.state.blob import Blob
from ml.state.tensor_file import TensorFile, TensorLayout
from ml.state.tensor_store import Fill, hash_chunks, write_tensors
from protocol.codec import Message
from protocol.errors import VerificationError
from protocol.merkle import merkle_root

KEPT_ROUNDS = 3

logger = logging.getLogger(__name__)


class WorkDone(NamedTuple):
    """The training behind an update."""

    sample_count: int
    """How many different samples were seen."""
    steps: int
    loss: float
    """Mean over the samples seen."""
    seconds: float


class UpdateKey(NamedTuple):
    """Names one part of an update: the names of its files follow from this."""

    round: int
    base_root: bytes
    part: int
    parts: int

    @property
    def stem(self) -> str:
        """What the names begin with, after the kind.

        >>> UpdateKey(round=7, base_root=bytes(32), part=0, parts=1).stem
        '00000007-0000000000000000-0of1'
        """
        return f"{self.round:08d}-{self.base_root.hex()[:16]}-{self.part}of{self.parts}"


class OwnUpdate(NamedTuple):
    """One part of an update, in its file, and the training behind it."""

    blob: Blob
    done: WorkDone


class OwnUpdates:
    """The newest own updates of one kind, in a directory that others may use too."""

    def __init__(self, directory: Path, kind: str) -> None:
        """``kind`` begins the files' names. Makes the directory."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._kind = kind
        self._pattern = re.compile(rf"{kind}-(\d{{8,}})-[0-9a-f]{{16}}-[0-9.a-z]+")
        self._newest: dict[UpdateKey, TensorFile] = {}
        """Of one round. An update in memory ends when its file is closed."""

    def save(self, key: UpdateKey, layout: TensorLayout, fill: Fill, done: WorkDone) -> OwnUpdate:
        """Write a part of an update, and what its training was.

        Where the disk is full it is in memory only, and gone with this process.
        """
        self._delete_older(key.round)
        written = write_tensors(self._directory, lambda root: self._name(key), layout, fill)
        self._hold(key, written.file)
        if not written.problem:
            self._note(key, written.blob, done)
        return OwnUpdate(written.blob, done)

    def find(self, key: UpdateKey, layout: TensorLayout) -> OwnUpdate | None:
        """The part that was made before under this key, if it is there whole."""
        path = self._directory / self._name(key)
        try:
            record = msgspec.json.decode(self._note_path(key).read_bytes(), type=_Record)
            file = TensorFile.open(path, layout)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, msgspec.DecodeError, VerificationError) as error:
            logger.warning("an update is made again: %s", error)
            return None
        leaves = hash_chunks(file.descriptor)
        if merkle_root(leaves) != record.root:
            logger.warning("an update is made again: %s is damaged", path.name)
            file.close()
            return None
        self._hold(key, file)
        blob = Blob(str(path), layout.size_bytes, record.root, leaves)
        done = WorkDone(record.sample_count, record.steps, record.loss, record.seconds)
        return OwnUpdate(blob, done)

    def close(self) -> None:
        """Close what is open; an update in memory is gone then."""
        for file in self._newest.values():
            file.close()
        self._newest = {}

    def _hold(self, key: UpdateKey, file: TensorFile) -> None:
        """Keep it open, and close those of other rounds."""
        for other in list(self._newest):
            if other == key or other._replace(part=key.part) != key:
                self._newest.pop(other).close()
        self._newest[key] = file

    def _note(self, key: UpdateKey, blob: Blob, done: WorkDone) -> None:
        path = self._note_path(key)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            temporary.write_bytes(msgspec.json.encode(_Record(blob.root, *done)))
            os.replace(temporary, path)
        except OSError as error:
            logger.warning("%s would not be found after a restart: %s", path.stem, error)

    def _delete_older(self, round_number: int) -> None:
        for path in self._directory.iterdir():
            match = self._pattern.fullmatch(path.name)
            if match and int(match[1]) <= round_number - KEPT_ROUNDS:
                path.unlink()

    def _name(self, key: UpdateKey) -> str:
        return f"{self._kind}-{key.stem}.safetensors"

    def _note_path(self, key: UpdateKey) -> Path:
        return self._directory / f"{self._kind}-{key.stem}.json"


class _Record(Message):
    root: bytes
    sample_count: int
    steps: int
    loss: float
    seconds: float


def delete_left_overs(directory: Path) -> None:
    """Delete what a killed writer left half-written."""
    for left_over in directory.glob(".*.tmp"):
        left_over.unlink()
