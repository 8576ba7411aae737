"""What this peer contributed, in files: served to others, and never made twice for one base.

A peer that trained a round again after a crash could come to other bits, and two different updates
of one peer for one round look like a lie. So what was written whole is used again. It is not
synced: a power cut takes longer than the round that it is good for.
"""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from ml.state.blob import Blob
from ml.state.tensor_file import TensorFile, TensorLayout
from ml.state.tensor_store import Fill, Written, hash_chunks, write_tensors
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
    """Names an update: its files' names follow from this."""

    round: int
    base_root: bytes
    part: int
    """The first of those that are written together."""
    parts: int

    @property
    def stem(self) -> str:
        """What the names begin with, after the kind.

        >>> UpdateKey(round=7, base_root=bytes(32), part=0, parts=1).stem
        '00000007-0000000000000000-0of1'
        """
        return f"{self.round:08d}-{self.base_root.hex()[:16]}-{self.part}of{self.parts}"


class OwnUpdates:
    """The newest own updates of one kind, in a directory that others may use too."""

    def __init__(self, directory: Path, kind: str) -> None:
        """``kind`` begins the files' names. Makes the directory."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._kind = kind
        self._pattern = re.compile(rf"{kind}-(\d{{8,}})-[0-9a-f]{{16}}-[0-9.a-z]+")
        self._newest: list[TensorFile] = []

    def save(
        self,
        key: UpdateKey,
        layouts: Sequence[TensorLayout],
        fills: Sequence[Fill],
        result: WorkDone,
    ) -> tuple[Blob, ...]:
        """Write an update in as many files as there are layouts, and what its training was.

        Where the disk is full it is in memory only, and gone with this process.
        """
        self._delete_older(key.round)
        blobs: list[Blob] = []
        files: list[TensorFile] = []
        problem = ""
        try:
            for index, (layout, fill) in enumerate(zip(layouts, fills, strict=True)):
                written = self._write(self._name(key, index), layout, fill)
                blobs.append(written.blob)
                files.append(written.file)
                problem = problem or written.problem
        except BaseException:
            for file in files:
                file.close()
            raise
        self._hold(files)
        if not problem:
            self._note(key, blobs, result)
        return tuple(blobs)

    def find(
        self, key: UpdateKey, layouts: Sequence[TensorLayout]
    ) -> tuple[tuple[Blob, ...], WorkDone] | None:
        """The update that was made before under this key, if it is there whole."""
        files: list[TensorFile] = []
        try:
            record = msgspec.json.decode(self._note_path(key).read_bytes(), type=_Record)
            blobs = []
            for index, (layout, root) in enumerate(zip(layouts, record.roots, strict=True)):
                path = self._directory / self._name(key, index)
                files.append(TensorFile.open(path, layout))
                leaves = hash_chunks(files[-1].descriptor)
                if merkle_root(leaves) != root:
                    raise VerificationError(f"{path.name} is damaged")
                blobs.append(Blob(str(path), layout.size_bytes, root, leaves))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, msgspec.DecodeError, VerificationError) as error:
            logger.warning("an update is made again: %s", error)
            for file in files:
                file.close()
            return None
        self._hold(files)
        result = WorkDone(record.sample_count, record.steps, record.loss, record.seconds)
        return tuple(blobs), result

    def close(self) -> None:
        """Close what is open; an update in memory is gone then."""
        self._hold([])

    def _write(self, name: str, layout: TensorLayout, fill: Fill) -> Written:
        return write_tensors(self._directory, lambda root: name, layout, fill)

    def _hold(self, files: list[TensorFile]) -> None:
        """An update in memory ends when its file is closed."""
        for file in self._newest:
            file.close()
        self._newest = files

    def _note(self, key: UpdateKey, blobs: Sequence[Blob], result: WorkDone) -> None:
        roots = tuple(blob.root for blob in blobs)
        record = _Record(roots, result.sample_count, result.steps, result.loss, result.seconds)
        path = self._note_path(key)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            temporary.write_bytes(msgspec.json.encode(record))
            os.replace(temporary, path)
        except OSError as error:
            logger.warning("%s would not be found after a restart: %s", path.stem, error)

    def _delete_older(self, round_number: int) -> None:
        for path in self._directory.iterdir():
            match = self._pattern.fullmatch(path.name)
            if match and int(match[1]) <= round_number - KEPT_ROUNDS:
                path.unlink()

    def _name(self, key: UpdateKey, index: int) -> str:
        return f"{self._kind}-{key._replace(part=key.part + index).stem}.safetensors"

    def _note_path(self, key: UpdateKey) -> Path:
        return self._directory / f"{self._kind}-{key.stem}.json"


class _Record(Message):
    roots: tuple[bytes, ...]
    sample_count: int
    steps: int
    loss: float
    seconds: float


def delete_left_overs(directory: Path) -> None:
    """Delete what a killed writer left half-written."""
    for left_over in directory.glob(".*.tmp"):
        left_over.unlink()
