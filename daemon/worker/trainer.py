"""What rounds need of whatever trains and averages (daemon/worker/worker.py does it)."""

from pathlib import Path
from typing import Protocol

from ml.averaging.messages import Contribution, Neighbour, PartResult, Reduced
from ml.opening import StateReady, Trained


class Trainer(Protocol):
    """Owns the tensors. Knows the state of one round at a time.

    Each method raises :class:`WorkerError` when it cannot be done, and :class:`VerificationError`
    when a file that it is given is not sound.
    """

    @property
    def is_ready(self) -> bool:
        """Whether it can be asked now."""

    async def train(self, round_number: int, parts: int = 1) -> Trained:
        """Train a round from the present state; the update comes in so many parts."""

    def finish_training(self) -> None:
        """End the training that runs, or is about to, after the step in hand."""

    async def check_update(self, path: Path, part: int, parts: int) -> None:
        """Return if the update in ``path``, of one part of the model, is sound."""

    async def apply(self, round_number: int, contributions: tuple[Contribution, ...]) -> StateReady:
        """Average a round's updates: the new state."""

    async def reduce(
        self, round_number: int, part: int, parts: int, contributions: tuple[Contribution, ...]
    ) -> Reduced:
        """Average what peers contributed to one part of the model."""

    async def apply_parts(
        self, round_number: int, parts: int, results: tuple[PartResult, ...]
    ) -> StateReady:
        """The new state from averaged parts; those that are lacking stay as they are."""

    async def mix(
        self, round_number: int, own_path: Path, neighbours: tuple[Neighbour, ...]
    ) -> StateReady:
        """The new state between this peer's parameters and those of neighbours."""

    async def load_state(self, round_number: int, path: Path, root: bytes) -> StateReady:
        """Take over a state."""
