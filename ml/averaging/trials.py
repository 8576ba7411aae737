"""Trials in gossip, the averager's half: which parameters are tried, and how far they moved.

The trainer has the samples (ml/training/held_out.py).
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ml.aggregate.aggregation import Plan, squared_norms
from ml.aggregate.average import Average
from ml.aggregate.mixing import moved
from ml.averaging.shared_model import SharedModel
from ml.state.state import State, blocks_of
from ml.update.codec import ReadBlock, UpdateFile
from ml.update.encoding import Floats
from protocol.errors import WorkerError


class Bench(Protocol):
    """Tries parameters."""

    def losses(self, round_number: int) -> Sequence[float]:
        """The losses of the parameters in the base memory, in the round after ``round_number``.

        Raises :class:`WorkerError` when they cannot be tried.
        """


class UpdateTrials:
    """One round's :class:`ml.aggregate.mixing.Trials`."""

    def __init__(
        self,
        bench: Bench,
        shared: SharedModel,
        base: State,
        updates: Sequence[UpdateFile],
        trust: dict[str, float],
    ) -> None:
        """``updates``: this peer's parameters first, trained from ``base``; then neighbours'."""
        self.trust = trust
        self._bench = bench
        self._shared = shared
        self._base = base
        self._updates = updates

    def moved(self) -> float:
        """How far this round's training has moved this peer's parameters."""
        squares = 0.0
        for spec in self._base.manifest.tensors:
            if spec.has_momentum:
                for start, stop in blocks_of(spec):
                    before, after = (
                        source.read(spec, start, stop).astype(np.float32, copy=False)
                        for source in (self._base, self._updates[0])
                    )
                    squares += float(squared_norms((after - before)[np.newaxis])[0])
        return math.sqrt(squares)

    def losses(self, row: int, share: float) -> NDArray[np.float64]:
        """The losses of this peer's model, moved by ``share`` of the way to that of
        ``updates[row]``.

        Raises :class:`VerificationError` for an update that is not sound.
        """
        both = self._updates[0], self._updates[row]

        def combine(stack: Floats) -> Floats:
            return moved(stack, [share])

        return self._try(Average(both, lambda stacks: Plan(combine, combine)).read)

    def base_losses(self) -> NDArray[np.float64]:
        """The losses of the model from which this round's training began."""
        return self._try(self._base.read)

    def _try(self, read: ReadBlock) -> NDArray[np.float64]:
        base = self._base
        self._shared.publish_candidate(base.manifest, read, base.round)
        losses = np.array(self._bench.losses(base.round), np.float64)
        if losses.ndim != 1 or losses.size < 2:
            raise WorkerError(f"the trainer answered {losses.size} losses to a trial")
        return losses
