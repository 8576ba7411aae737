"""What rounds need of whatever trains and averages (daemon/worker/worker.py does it)."""

from typing import Protocol, TypeVar

from daemon.worker.child import Request
from ml.averaging.messages import PartWritten
from ml.opening import StateReady, Trained
from ml.round_steps import Advance

T = TypeVar("T")


class Judge(Protocol):
    """Who learns how good a state is."""

    def judge(self, state: StateReady) -> None:
        """Its evaluation has ended, or could not be had."""


class PartTaker(Protocol):
    """Who takes the parts of an update, each as soon as it is written."""

    def part_written(self, part: int, written: PartWritten) -> None:
        """A part of the update that is asked for is there."""


class Trainer(Protocol):
    """Owns the tensors. Knows the state of one round at a time.

    Each method raises :class:`WorkerError` when it cannot be done, and :class:`VerificationError`
    when a file that it is given is not sound.

    Example (daemon/rounds/kinds/gossip_round.py)::

        trained = await parts.worker.train(self.number)
    """

    @property
    def is_ready(self) -> bool:
        """Whether it can be asked now."""

    async def train(
        self, round_number: int, parts: int = 1, first: int = 0, taker: PartTaker | None = None
    ) -> Trained:
        """Train a round from the present state; the update comes in so many parts, that of index
        ``first`` first, and ``taker`` is told of each."""

    def finish_training(self) -> None:
        """End the training that runs, or is about to, after the step in hand."""

    async def ask(self, request: Request[T]) -> T:
        """What answers ``request`` (:class:`CheckUpdate`, :class:`Reduce`, :class:`Export`)."""

    async def advance(self, request: Advance) -> StateReady:
        """The new state that ``request`` leads to."""

    def evaluate(self, state: StateReady, judge: Judge) -> None:
        """Have ``state`` evaluated beside the next training; ``judge`` is told."""
