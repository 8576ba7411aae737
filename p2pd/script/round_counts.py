"""What a script has done in a round so far."""

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class RoundCounts:
    """Of this process, since the base was loaded.

    >>> counts = RoundCounts()
    >>> for loss in (3.0, 1.0):
    ...     counts.add(loss, samples=8)
    >>> counts.steps, counts.samples, counts.loss_sum / counts.samples
    (2, 16, 2.0)
    """

    def __init__(self) -> None:
        self.steps = 0
        self.samples = 0
        self.began_s = time.monotonic()
        self._loss_sum: Any = 0.0
        """A tensor where losses are: reading it would wait for the device in each step."""

    @property
    def loss_sum(self) -> float:
        """Each step's mean loss, times its samples."""
        return float(self._loss_sum)

    def add(self, loss: "torch.Tensor | float", samples: int) -> None:
        """One step was taken."""
        self.steps += 1
        self.samples += samples
        value = loss if isinstance(loss, float | int) else loss.detach()
        self._loss_sum = self._loss_sum + value * samples
