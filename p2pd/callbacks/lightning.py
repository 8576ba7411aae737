"""Lightning in a swarm: ``Trainer(callbacks=[SwarmCallback("link.txt")])``.

The swarm is joined when training begins, and left when it ends; training ends when the swarm is
complete. Schedules of learning rates that are stepped in each step go by the swarm's steps.
"""

from collections.abc import Mapping
from typing import Any

import lightning

from p2pd.callbacks.batch import length_of
from p2pd.callbacks.schedule import Schedule
from p2pd.script.joining import join
from p2pd.script.swarm import Swarm


class SwarmCallback(lightning.Callback):  # type: ignore[misc]  # lightning's types are not read
    """Takes part while a Lightning Trainer trains."""

    def __init__(self, link: str | None, **options: Any) -> None:
        """As for :func:`p2pd.join`, without the model and its optimizer."""
        super().__init__()
        self._link = link
        self._options = options
        self._taken = 0
        self._samples = 0
        self._schedule = Schedule([])
        self.swarm: Swarm | None = None
        """While it trains."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Join. Raises :class:`p2pd.SwarmError`."""
        optimizer = trainer.optimizers[0] if len(trainer.optimizers) == 1 else None
        self._taken = trainer.global_step
        self.swarm = join(self._link, pl_module, optimizer, **self._options)
        configs = trainer.lr_scheduler_configs
        self._schedule = Schedule(
            one.scheduler for one in configs if (one.interval, one.frequency) == ("step", 1)
        )
        self._schedule.follow(self.swarm.steps, begins=True)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch, and the step if it was one; end with the swarm."""
        assert self.swarm is not None
        self._samples += length_of(batch)
        if trainer.global_step == self._taken or self.swarm.complete:
            return  # gradients are accumulated
        self._taken = trainer.global_step
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        ended = self.swarm.step(loss=loss, samples=self._samples)
        self._schedule.follow(self.swarm.steps, begins=ended)
        self._samples = 0
        trainer.should_stop = trainer.should_stop or self.swarm.complete

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave."""
        if self.swarm is not None:
            self.swarm.leave()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave."""
        self.on_train_end(trainer, pl_module)
