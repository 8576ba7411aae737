"""What carries orders out on a script's model: one at each rank, all doing the same."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from p2pd.messages import Evaluated, Opened
from p2pd.script.desk import Desk, Order
from p2pd.script.errors import SwarmError
from p2pd.shared_tensors import NO_ROOT, StaleMemoryError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from p2pd.script.ranks import Ranks

Measures = float | Mapping[str, float]
"""What an evaluation says: a metric such as an accuracy, or that and the ``loss``, by name."""


class Evaluation(Protocol):
    """A function of the script's own."""

    def __call__(self) -> Measures:
        """How good its model is now."""


class Hand:
    """Has the model; the first rank's has the desk too."""

    def __init__(
        self,
        desk: Desk | None,
        ranks: "Ranks",
        model: "nn.Module",
        optimizer: "Optimizer | None" = None,
        *,
        evaluate: Evaluation | None = None,
        samples: int = 0,
    ) -> None:
        """``optimizer``: whose state is to survive this process; None: nobody's.

        Raises :class:`SwarmError` for a model that cannot be exchanged.
        """
        from p2pd.script.inner_state import InnerState
        from p2pd.script.replica import Replica

        self.desk = desk
        self.ranks = ranks
        self.sample_count = samples
        self._replica = Replica(model, ranks)
        self._inner = None if optimizer is None else InnerState(optimizer)
        self._evaluate = evaluate
        self._about: Mapping[str, Any] = {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """The swarm's round settings, by name."""
        settings: Mapping[str, Any] = self._about["settings"]
        return settings

    @property
    def state_dir(self) -> str:
        """Where the peer keeps what lives on."""
        return str(Path(self._about["own_directory"]).parent)

    def next_order(self, waits_since_s: float) -> Order:
        """What to do now, at all ranks the same."""
        order = Order("wait") if self.desk is None else self.desk.next_order(waits_since_s)
        return self.ranks.share(order)

    def describe(self) -> None:
        """Say what the model is, and put it as it is now into the local memory.

        Raises :class:`SwarmError`.
        """
        desk = self.desk
        about: Mapping[str, Any] = {}
        if desk is not None:
            opened = desk.opened
            about = {"settings": opened.settings, "own_directory": opened.own_directory}
        self._about = self.ranks.share(about)
        if self.settings["local_unit"] == "epochs" and not self.sample_count:
            raise SwarmError(
                "this swarm counts its rounds in epochs: say how many samples one has,"
                " p2pd.join(…, samples=len(dataset))"
            )
        self.write(0, NO_ROOT)
        if self._inner is not None:
            self._inner.load(Path(self._about["own_directory"]) / f"{self.ranks.number}.pt")
        frozen = self._replica.frozen()
        if desk is not None:
            desk.answer(
                Opened(
                    tensors=list(self._replica.description),
                    tied=dict(self._replica.tied),
                    sample_count=self.sample_count or 1,
                    frozen=frozen,
                    task=type(self._replica.model).__name__,
                )
            )

    def write(self, round_number: int, root: bytes) -> None:
        """Put the model into the local memory: trained in that round, from the base of ``root``."""
        memory = None if self.desk is None else self.desk.end.memories.local
        self._replica.write(memory, round_number, root)

    def keep_inner(self) -> None:
        """Have the optimizer's state, as it is after a round, survive this process."""
        if self._inner is not None:
            self._inner.save()

    def close(self) -> None:
        """Wait for what is being written, and end the channel."""
        if self._inner is not None:
            self._inner.settle()
        if self.desk is not None:
            self.desk.leave()

    def read(self, order: Order) -> bool:
        """Make the model the base that ``order`` names; False where it is there no more."""
        memory = None if self.desk is None else self.desk.end.memories.base
        problem = ""
        try:
            self._replica.read(memory, order.round, order.root)
        except StaleMemoryError as error:
            problem = str(error)
        problem = self.ranks.share(problem)
        if problem and self.desk is not None:
            self.desk.failed(problem)
        return not problem

    def evaluate(self, order: Order) -> None:
        """Have the script evaluate the base that ``order`` names, and say what it found."""
        assert self._evaluate is not None
        loss = metric = None
        if self.read(order):
            found: Any = self._replica.evaluate(self._evaluate)
            if isinstance(found, Mapping):
                loss = number(found.get("loss"))
                found = next((value for name, value in found.items() if name != "loss"), None)
            metric = number(found)
        if self.desk is not None:
            self.desk.answer(Evaluated(loss, metric))


def number(value: Any) -> float | None:
    """A finite number, also out of a tensor; else None."""
    if value is None:
        return None
    found = float(value)
    return found if math.isfinite(found) else None
