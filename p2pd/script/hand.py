"""What carries orders out on a script's model: one at each rank, all doing the same."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from p2pd.messages import Evaluated, Opened
from p2pd.metrics import ACCURACY, LOSS, Metric, finite, tell
from p2pd.script.desk import Desk, Order
from p2pd.script.errors import SwarmError
from p2pd.shared_tensors import NO_ROOT, StaleMemoryError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from p2pd.script.ranks import Ranks
    from p2pd.trainer import Memories

Measures = float | Mapping[str, float]
"""What an evaluation says: the leading metric, or several and the ``loss``, by name."""


class Evaluation(Protocol):
    """A function of the script's own."""

    def __call__(self) -> Measures:
        """How good its model is now."""


@dataclass(frozen=True, slots=True)
class Measuring:
    """How a script says how good its model is."""

    metrics: tuple[Metric, ...] = (ACCURACY,)
    """Those of which it said which direction is better; the leading one first."""
    evaluate: Evaluation | None = None
    """What finds it out when the daemon asks; None: nothing does."""

    def told(self, found: Mapping[str, Any]) -> tuple[float | None, list[Any]]:
        """The loss, and the metrics as a trainer tells them. Raises :class:`SwarmError`."""
        named = {name: value for name, value in found.items() if name != LOSS.name}
        try:
            return finite(found.get(LOSS.name)), tell(self.metrics, named)
        except (TypeError, ValueError) as error:
            raise SwarmError(f"an evaluation says {dict(found)!r}: {error}") from error


class Hand:
    """Has the model; the first rank's has the desk too."""

    def __init__(
        self,
        desk: Desk | None,
        ranks: "Ranks",
        model: "nn.Module",
        optimizer: "Optimizer | None" = None,
        *,
        measuring: Measuring,
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
        self._inner = None if optimizer is None else InnerState(optimizer, ranks)
        self.measuring = measuring
        if desk is not None:
            desk.evaluates = measuring.evaluate is not None
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

    @property
    def began_elsewhere(self) -> bool:
        """Whether the present training began at another place than at its round's base."""
        return self._replica.began_elsewhere

    def next_order(self, waits_since_s: float, *, waits: bool = True) -> Order:
        """What to do now, at all ranks the same. See :meth:`Desk.next_order`."""
        desk = self.desk
        order = Order("wait") if desk is None else desk.next_order(waits_since_s, waits=waits)
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
        self.leave(0, NO_ROOT)
        frozen = self._replica.frozen()
        if desk is not None:
            desk.answer(
                Opened(
                    tensors=list(self._replica.description),
                    tied=dict(self._replica.tied),
                    sample_count=self.sample_count or 1,
                    frozen=frozen,
                    device=self._replica.device,
                    task=type(self._replica.model).__name__,
                )
            )

    def leave(self, round_number: int, root: bytes) -> None:
        """Put the model into the local memory: trained in that round, from the base of ``root``."""
        self._replica.leave(self._memories, round_number, root)

    def keep_inner(self, round_number: int) -> None:
        """Have the optimizer's state, as it is after that round, survive this process."""
        if self._inner is not None and self._keeps_inner:
            self._inner.save(round_number)

    def save_whole(self, path: Path, export: Callable[[Path], object]) -> None:
        """Write what ``export`` writes, and beside it all else that the model has.

        Raises :class:`SwarmError` at all ranks.
        """
        self._replica.save_whole(path, export)

    def close(self) -> None:
        """Wait for what is being written, and end the channel."""
        if self._inner is not None:
            self._inner.settle()
        if self.desk is not None:
            self.desk.leave()

    def begin(self, order: Order) -> bool:
        """Be ready to train from where ``order`` says; False where that is there no more."""
        if not self._read(order, is_origin=order.from_origin):
            return False
        if self._inner is not None:
            if self._keeps_inner:
                self._inner.load(Path(self._about["own_directory"]), order.round)
            else:
                self._inner.forget()
        return True

    def go_on(self, order: Order) -> bool:
        """Be ready to train on, after the round from the base that ``order`` names; False where
        there is no overlap, no further round, or another state already."""
        last = self.settings["rounds"]
        if not self.settings["overlap"] or 0 < last < order.round + 2:
            return False
        memory = None if self._memories is None else self._memories.base
        try:
            self._replica.go_on(memory, order.round, order.root)
        except StaleMemoryError:
            return False
        if self._inner is not None and not self._keeps_inner:
            self._inner.forget()
        return True

    def evaluate(self, order: Order, *, keeps_model: bool) -> None:
        """Have the script evaluate the base that ``order`` names, and say what it found.

        ``keeps_model``: the model is in the midst of a training, which goes on.
        """
        measuring = self.measuring
        said: tuple[float | None, list[Any]] = (None, [])
        if measuring.evaluate is not None:
            with self._replica.kept() if keeps_model else contextlib.nullcontext():
                if self._read(order):
                    found: Any = self._replica.evaluate(measuring.evaluate)
                    leading = measuring.metrics[0].name
                    said = measuring.told(found if isinstance(found, Mapping) else {leading: found})
        if self.desk is not None:
            self.desk.answer(Evaluated(*said))

    @property
    def _memories(self) -> "Memories | None":
        return None if self.desk is None else self.desk.end.memories

    @property
    def _keeps_inner(self) -> bool:
        return bool(self.settings["inner_state"] == "keep")

    def _read(self, order: Order, *, is_origin: bool = False) -> bool:
        memory = None
        if self._memories is not None:
            memory = self._memories.origin if is_origin else self._memories.base
        try:
            self._replica.read(memory, order.round, order.root, is_origin=is_origin)
        except StaleMemoryError as error:
            if self.desk is not None:
                self.desk.failed(str(error))
            return False
        return True
