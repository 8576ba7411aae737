"""Error feedback: the next update also carries what the encoding lost (arXiv 1901.09847).

Where that is most of the update, the next training begins with it: at the base less the left-over,
which points from the trained model to the base as a pseudo-gradient does. So the peer's own model
loses nothing of what it learnt, and others see of it what has been sent.

The left-over is a file next to the checkpoints, named by the round whose update it comes from. It
counts only once that update has been committed: an update that was never applied was not sent. It
is synced beside the round: a power cut may cost it, and nothing else.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ml.state.late_sync import LateSync
from ml.state.manifest import Manifest, TensorSpec
from ml.state.tensor_file import FileTensor, TensorFile, layout_of
from ml.state.tensor_store import Fill, write_tensors
from ml.update.encoding import Floats
from protocol.errors import VerificationError


class ErrorFeedback:
    """The left-over of one peer's updates, and that of the update that is under way."""

    def __init__(
        self, directory: Path, manifest: Manifest, decay: float, round_number: int
    ) -> None:
        """Takes up the left-over of ``round_number``'s update if there is one."""
        self._directory = directory
        self._sync = LateSync()
        self._decay = decay
        tensors = [
            FileTensor(spec.name, "F32", spec.shape)
            for spec in manifest.tensors
            if spec.has_momentum
        ]
        self._layout = layout_of(tensors, {"format": "p2pd-residual-1"})
        self._current = self._open(round_number)
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
        self._pending = self._open(round_number)
        return self._pending is not None

    def settle(self, round_number: int, *, committed: bool) -> None:
        """``round_number``'s state is there, with or without this peer's update in it."""
        if committed and self._pending is not None:
            self._current, self._pending = self._pending, self._current
        self._drop_pending()
        if self._current is not None:
            # Named by the round of the state, so that a restart from that state finds it.
            self._current = self._current.moved_to(self._path(round_number))
        for other in self._directory.glob("residual-*.safetensors"):
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

    def _open(self, round_number: int) -> "_LeftOver | None":
        path = self._path(round_number)
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

    def moved_to(self, path: Path) -> "_LeftOver":
        if self.path != path and self.path.exists():
            self.path.rename(path)
        return _LeftOver(path, self.file)
