"""Error feedback: the next update also carries what the encoding lost (arXiv 1901.09847).

Where the left-over stays in the peer's own model, the next training begins with it: at the base
less the left-over, which points from the trained model to the base as a pseudo-gradient does. So
the peer's own model loses nothing of what it learned, and others see of it what has been sent.

Two kinds of files lie next to the checkpoints. ``pending-N`` is what the update of round N leaves
over; it is not changed while that round lasts. ``residual-N`` belongs to the state of round N: it
gets its name just before that state has its own, so that a process that is killed in between
finds either both or neither of use. Files are synced beside the round: a power cut may cost them,
and nothing else.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ml.state.late_sync import LateSync
from ml.state.manifest import Manifest, TensorSpec
from ml.state.tensor_file import FileTensor, TensorFile, TensorSink, layout_of
from ml.state.tensor_store import Fill, write_tensors
from ml.update.codec import ReadBlock
from ml.update.encoding import Floats
from protocol.errors import VerificationError

logger = logging.getLogger(__name__)

Block = tuple[TensorSpec, int, int, ReadBlock | None]
"""A run of a tensor, and what reads numbers of it."""
_RESIDUALS, _PENDING = "residual-*.safetensors", "pending-*.safetensors"
_TEMPORARY = ".residual.tmp"
"""Deleted at the next opening (ml/state/checkpoint.py)."""


class ErrorFeedback:
    """The left-over of one peer's updates, and that of the update that is under way."""

    def __init__(
        self, directory: Path, manifest: Manifest, decay: float, round_number: int
    ) -> None:
        """Takes up what is left over in the state of ``round_number``, else the newest before it:
        a process that was killed did not come to name it anew."""
        self._directory = directory
        self._sync = LateSync()
        self._decay = decay
        tensors = [
            FileTensor(spec.name, "F32", spec.shape)
            for spec in manifest.tensors
            if spec.has_momentum
        ]
        self._layout = layout_of(tensors, {"format": "p2pd-residual-1"})
        newest = self._residual(round_number)
        earlier = sorted((one for one in directory.glob(_RESIDUALS) if one <= newest), reverse=True)
        self._current = next((one for path in earlier if (one := self._open(path))), None)
        self._pending: _LeftOver | None = None
        self._prepared: _LeftOver | None = None
        """What is left over once the state is there that is being made."""

    def add_to(self, spec: TensorSpec, start: int, values: Floats) -> Floats:
        """``values`` of a parameter, and what is left over for them."""
        if self._current is None:
            return values
        return values + np.float32(self._decay) * self._current.read(spec, start, values.size)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left over."""
        return self._current is None

    def begin_with(self, spec: TensorSpec, start: int, values: Floats) -> Floats:
        """Where training begins: ``values`` of the base, less what is left over for them."""
        if self._current is None:
            return values
        return values - self._current.read(spec, start, values.size)

    def write_pending(self, round_number: int, fill: Fill) -> None:
        """Write what the update of ``round_number`` leaves over."""
        self._close_pending()
        self._pending = self._write(self._directory / _pending(round_number), fill)

    def take_pending(self, round_number: int) -> bool:
        """Whether that is there; after a restart it is taken up."""
        path = self._directory / _pending(round_number)
        if self._pending is None or self._pending.path != path:
            self._close_pending()
            self._pending = self._open(path)
        return self._pending is not None

    def prepare(
        self, round_number: int, *, committed: bool, given_back: Sequence[Block] = ()
    ) -> None:
        """The state of ``round_number`` is about to be there, with or without this peer's update.
        That may fail, and be tried again.

        ``given_back``: where some of the update was not averaged, all blocks of the parameters,
        each with what reads the numbers that were not, or None: these are left over too.
        """
        self._close_prepared()
        path = self._residual(round_number)
        pending = self._pending if committed else None
        if pending is not None and given_back:

            def fill(writer: TensorSink) -> None:
                for spec, start, stop, read in given_back:
                    values = pending.read(spec, start, stop - start)
                    if read is not None:
                        values = values + read(spec, start, stop).astype(np.float32, copy=False)
                    writer.write(spec.name, start, values)

            self._prepared = self._write(path, fill)
            return
        self._prepared = pending or self._current
        try:
            self._link(self._prepared, path)
        except OSError as error:  # Not every file system has hard links; the round goes on.
            logger.warning("left-over of round %d: %s", round_number, error.strerror or error)

    def settle(self, round_number: int) -> None:
        """The state that was prepared for is there."""
        left_over, self._prepared = self._prepared, None
        for other in (self._current, self._pending):
            if other is not None and other is not left_over:
                other.file.close()
        self._current = self._pending = None
        path = self._residual(round_number)
        if left_over is not None:
            self._current = left_over.moved_to(path)
        for other_path in (*self._directory.glob(_RESIDUALS), *self._directory.glob(_PENDING)):
            if self._current is None or other_path != path:
                other_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files."""
        self._sync.close()
        self._close_prepared()
        self._close_pending()
        if self._current is not None:
            self._current.file.close()

    def _residual(self, round_number: int) -> Path:
        return self._directory / f"residual-{round_number:08d}.safetensors"

    def _open(self, path: Path) -> "_LeftOver | None":
        try:
            return _LeftOver(path, TensorFile.open(path, self._layout))
        except (FileNotFoundError, VerificationError):
            return None

    def _write(self, path: Path, fill: Fill) -> "_LeftOver":
        written = write_tensors(self._directory, lambda root: path.name, self._layout, fill)
        if not written.problem:
            self._sync.add(self._directory, [written.file.descriptor], lambda problem: None)
        return _LeftOver(path, written.file)

    def _link(self, left_over: "_LeftOver | None", path: Path) -> None:
        """Have ``path`` be a second name of it; without a left-over, or where that is in memory
        only, no name of anything."""
        if left_over is not None and left_over.path == path:
            return
        temporary = self._directory / _TEMPORARY
        temporary.unlink(missing_ok=True)
        if left_over is None or not left_over.path.exists():
            path.unlink(missing_ok=True)
            return
        temporary.hardlink_to(left_over.path)
        temporary.replace(path)
        temporary.unlink(missing_ok=True)  # It stays where both were the same file already.

    def _close_prepared(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared is not self._current and prepared is not self._pending:
            prepared.file.close()

    def _close_pending(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.file.close()


def _pending(round_number: int) -> str:
    return f"pending-{round_number:08d}.safetensors"


class _LeftOver(NamedTuple):
    path: Path
    """The file of the left-over. On a full disk it is in memory only, and nothing is at this
    path."""
    file: TensorFile

    def read(self, spec: TensorSpec, start: int, count: int) -> Floats:
        return self.file.read(spec.name, start, start + count).astype(np.float32, copy=False)

    def moved_to(self, path: Path) -> "_LeftOver":
        if self.path != path and self.path.exists():
            self.path.replace(path)
        return _LeftOver(path, self.file)
