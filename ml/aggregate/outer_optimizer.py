"""The outer optimizer: from a round's base and its aggregated pseudo-gradient to the next base.

Nesterov momentum on pseudo-gradients (DiLoCo, arXiv 2311.08105), as ``torch.optim.SGD`` with
``nesterov=True`` computes it. With learning rate 1 and momentum 0 the next base is the average of
the peers' models. float32, elementwise: equal inputs give equal bits on any machine.

>>> base, gradient = np.float32([1, 2]), np.float32([0.5, 0.5])
>>> OuterOptimizer(learning_rate=1.0, momentum=0.0).step(base, None, gradient)
(array([0.5, 1.5], dtype=float32), None)
>>> OuterOptimizer(learning_rate=1.0, momentum=1.0)
Traceback (most recent call last):
protocol.errors.ConfigError: outer momentum 1.0: it must be 0 or more, and below 1
"""

from dataclasses import dataclass

import numpy as np

from ml.update.encoding import Floats
from protocol.errors import ConfigError


@dataclass(frozen=True, slots=True)
class OuterOptimizer:
    """Raises :class:`ConfigError` for settings that cannot converge."""

    learning_rate: float
    momentum: float

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate <= 10:
            raise ConfigError(
                f"outer learning rate {self.learning_rate}: it must be above 0 and at most 10"
            )
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"outer momentum {self.momentum}: it must be 0 or more, and below 1")

    def step(
        self, base: Floats, velocity: Floats | None, gradient: Floats
    ) -> tuple[Floats, Floats | None]:
        """The next base of a block of parameters and the next velocity (None without momentum)."""
        momentum = np.float32(self.momentum)
        if velocity is not None:
            velocity = (momentum * velocity + gradient).astype(np.float32, copy=False)
            gradient = gradient + momentum * velocity
        following = base - np.float32(self.learning_rate) * gradient
        return following.astype(np.float32, copy=False), velocity
