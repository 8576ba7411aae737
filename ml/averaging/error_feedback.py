"""Error feedback: the next update also carries what the encoding lost (arXiv 1901.09847).

Where the left-over stays in the peer's own model, the next training begins with it: at the base
less the left-over, which points from the trained model to the base as a pseudo-gradient does. So
the peer's own model loses nothing of what it learned, and others see of it what has been sent.

The left-over is a file next to the checkpoints, named by the round whose update it comes from. It
counts only once that update has been committed: an update that was never applied was not sent. It
is synced beside the round: a power cut may cost it, and nothing else.
"""

import logging
from collections.abc import Iterable
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

_Block = tuple[TensorSpec, int, int, ReadBlock | None]
_NAMES = "residual-*.safetensors"
_PASSED_OVER = ".residual.tmp"
"""Of an update that is not in the state; deleted at the next opening (ml/state/checkpoint.py)."""


class ErrorFeedback:
    """The left-over of one peer's updates, and that of the update that is under way."""

    def __init__(
        self, directory: Path, manifest: Manifest, decay: float, round_number: int
    ) -> None:
        """Takes up the left-over of ``round_number``'s update if there is one, else the newest
        before it: a process that was killed did not come to name it anew."""
        self._directory = directory
        self._sync = LateSync()
        self._decay = decay
        tensors = [
            FileTensor(spec.name, "F32", spec.shape)
            for spec in manifest.tensors
            if spec.has_momentum
        ]
        self._layout = layout_of(tensors, {"format": "p2pd-residual-1"})
        earlier = [self._path(round_number), *sorted(directory.glob(_NAMES), reverse=True)]
        self._current = next(
            (
                one
                for path in earlier
                if path <= self._path(round_number) and (one := self._open(path)) is not None
            ),
            None,
        )
        self._pending: _LeftOver | None = None

    def add_to(self, spec: TensorSpec, start: int, values: Floats) -> Floats:
        """``values`` of a parameter, and what is left over for them."""
        if self._current is None:
            return values
        left_over = self._current.file.read(spec.name, start, start + values.size)
        return values + np.float32(self._decay) * left_over.astype(np.float32, copy=False)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left over."""
        return self._current is None

    def begin_with(self, spec: TensorSpec, start: int, values: Floats) -> Floats:
        """Where training begins: ``values`` of the base, less what is left over for them."""
        if self._current is None:
            return values
        left_over = self._current.file.read(spec.name, start, start + values.size)
        return values - left_over.astype(np.float32, copy=False)

    def write_pending(self, round_number: int, fill: Fill) -> None:
        """Write the left-over of ``round_number``'s update."""
        self._drop_pending()
        path = self._path(round_number)
        written = write_tensors(self._directory, lambda root: path.name, self._layout, fill)
        self._pending = _LeftOver(path, written.file)
        if not written.problem:
            self._sync.add(self._directory, [written.file.descriptor], lambda problem: None)

    def take_pending(self, round_number: int) -> bool:
        """Take up the left-over of an update that was written before a restart, if it is there."""
        self._drop_pending()
        self._pending = self._open(self._path(round_number))
        return self._pending is not None

    @property
    def has_pending(self) -> bool:
        """Whether there is an update under way."""
        return self._pending is not None

    def give_back(self, round_number: int, blocks: Iterable[_Block]) -> None:
        """Of the update of ``round_number``, some was not averaged: that is left over as well.

        ``blocks``: all of the parameters', each with what reads its sent numbers, or None.
        """
        before, self._pending = self._pending, None
        if before is None:
            return

        def fill(writer: TensorSink) -> None:
            for spec, start, stop, read_sent in blocks:
                values = before.file.read(spec.name, start, stop).astype(np.float32, copy=False)
                if read_sent is not None:
                    values = values + read_sent(spec, start, stop).astype(np.float32, copy=False)
                writer.write(spec.name, start, values)

        try:
            self.write_pending(round_number, fill)
        finally:
            before.file.close()

    def pass_over(self, round_number: int) -> None:
        """``round_number``'s state will be there, without this peer's update. So its name goes to
        what was left over before, lest a killed process takes up the other."""
        path = self._path(round_number)
        try:
            if self._pending is not None:
                self._pending = self._pending.moved_to(self._directory / _PASSED_OVER)
            if self._current is not None and self._current.path != path:
                path.unlink(missing_ok=True)
                if self._current.is_on_disk:
                    path.hardlink_to(self._current.path)
        except OSError as error:  # Not every file system has hard links; the round goes on.
            logger.warning("left-over of round %d: %s", round_number, error.strerror or error)

    def settle(self, round_number: int, *, committed: bool) -> None:
        """``round_number``'s state is there, with or without this peer's update in it."""
        if committed and self._pending is not None:
            self._current, self._pending = self._pending, self._current
        self._drop_pending()
        if self._current is not None:
            # Named by the round of the state, so that a restart from that state finds it.
            self._current = self._current.moved_to(self._path(round_number))
        (self._directory / _PASSED_OVER).unlink(missing_ok=True)
        for other in self._directory.glob(_NAMES):
            if self._current is None or other != self._current.path:
                other.unlink()

    def close(self) -> None:
        """Close the files."""
        self._sync.close()
        for left_over in (self._current, self._pending):
            if left_over is not None:
                left_over.file.close()

    def _path(self, round_number: int) -> Path:
        return self._directory / f"residual-{round_number:08d}.safetensors"

    def _open(self, path: Path) -> "_LeftOver | None":
        try:
            return _LeftOver(path, TensorFile.open(path, self._layout))
        except (FileNotFoundError, VerificationError):
            return None

    def _drop_pending(self) -> None:
        if self._pending is not None:
            self._pending.file.close()
            self._pending = None


class _LeftOver(NamedTuple):
    path: Path
    """The file of the left-over. On a full disk it is in memory only, and nothing is at this
    path."""
    file: TensorFile

    @property
    def is_on_disk(self) -> bool:
        return self.path.exists()

    def moved_to(self, path: Path) -> "_LeftOver":
        if self.path != path and self.is_on_disk:
            self.path.replace(path)
        return _LeftOver(path, self.file)
