"""What one measurement yields, whichever system it is of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """Which averaging is measured."""

    peers: int
    parameters: int
    """Of the model, float32 each."""

    def __str__(self) -> str:
        return f"{self.peers} x {self.parameters / 1e6:g} M"


@dataclass(frozen=True, slots=True)
class Measured:
    """What it took."""

    round_s: list[float]
    """Seconds from the end of one round to the end of the next one."""
    cpu_s: float
    """CPU seconds of one peer and round, all of its processes together."""
    peak_bytes: int
    """The most resident memory of one peer, all of its processes together."""
