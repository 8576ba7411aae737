"""What rounds need of whatever trains and averages (daemon/task_worker.py does it)."""

from pathlib import Path
from typing import Protocol

from ml.worker_messages import Contribution, StateReady, Trained


class Trainer(Protocol):
    """Owns the tensors. Knows the state of one round at a time."""

    @property
    def is_ready(self) -> bool:
        """Whether it can be asked now."""

    async def train(self, round_number: int) -> Trained:
        """Train a round from the present state. Raises :class:`WorkerError`."""

    def finish_training(self) -> None:
        """End the training that runs, or is about to, after the step in hand."""

    async def apply(self, round_number: int, contributions: tuple[Contribution, ...]) -> StateReady:
        """Average a round's updates: the new state. Raises :class:`WorkerError`."""

    async def load_state(self, round_number: int, path: Path, root: bytes) -> StateReady:
        """Take over a state. Raises :class:`VerificationError` when it is not sound."""
