"""How much a peer trains in a round."""

import math
from dataclasses import dataclass
from typing import Literal

from protocol.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LocalWork:
    """How much a peer trains in a round."""

    unit: Literal["epochs", "steps", "seconds"]
    amount: float

    @classmethod
    def parse(cls, unit: str, amount: float) -> "LocalWork":
        """Read it from settings. Raises :class:`ConfigError`."""
        if not 0 < amount < math.inf:
            raise ConfigError(f"local amount {amount}: it must be greater than 0")
        match unit:
            case "epochs" | "steps" | "seconds":
                return cls(unit, amount)
        raise ConfigError(f"local unit {unit!r}: write epochs, steps or seconds")

    def max_steps(self, steps_per_epoch: int) -> float:
        """How many steps at most; infinity where only time counts.

        >>> LocalWork.parse("epochs", 2.0).max_steps(steps_per_epoch=50)
        100
        """
        match self.unit:
            case "epochs":
                return math.ceil(self.amount * steps_per_epoch)
            case "steps":
                return math.ceil(self.amount)
            case "seconds":
                return math.inf
