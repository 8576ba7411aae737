"""transformers.Trainer in a swarm: ``Trainer(…, callbacks=[SwarmCallback("link.txt")])``.

The swarm is joined when training begins, and left when it ends; training ends when the swarm is
complete. The Trainer's schedule of learning rates goes by the swarm's steps.
"""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from p2pd.callbacks.batch import length_of
from p2pd.callbacks.schedule import Schedule
from p2pd.script.joining import join
from p2pd.script.swarm import Swarm


class SwarmCallback(TrainerCallback):  # type: ignore[misc]  # transformers' types are not read
    """Takes part while a Trainer trains."""

    def __init__(self, link: str | None, **options: Any) -> None:
        """As for :func:`p2pd.join`, without the model and its optimizer."""
        self._link = link
        self._options = options
        self._loss: torch.Tensor | float = 0.0
        self._samples = 0
        self._hook: Any = None
        self._schedule = Schedule([])
        self.swarm: Swarm | None = None
        """While it trains."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **parts: Any,
    ) -> None:
        """Join. Raises :class:`p2pd.SwarmError`."""
        model, wrapped = parts["model"], parts.get("optimizer")
        optimizer = getattr(wrapped, "optimizer", wrapped)  # as accelerate has it
        self.swarm = join(self._link, model, optimizer, **self._options)
        self._schedule = Schedule([parts.get("lr_scheduler")])
        self._schedule.follow(self.swarm.steps, begins=True)
        # A Trainer tells its callbacks no loss of a step.
        self._hook = model.register_forward_hook(self._note, with_kwargs=True)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **parts: Any,
    ) -> None:
        """Count the step; end with the swarm."""
        assert self.swarm is not None
        ended = self.swarm.step(loss=self._loss, samples=max(1, self._samples))
        self._schedule.follow(self.swarm.steps, begins=ended)
        self._samples = 0
        if self.swarm.complete:
            control.should_training_stop = True

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **parts: Any,
    ) -> None:
        """Leave."""
        if self._hook is not None:
            self._hook.remove()
        if self.swarm is not None:
            self.swarm.leave()

    def _note(self, model: Any, inputs: Any, named: dict[str, Any], output: Any) -> None:
        if not model.training:
            return
        loss = output["loss"] if isinstance(output, dict) else output[0]
        self._loss = loss.detach()
        self._samples += length_of((*inputs, named))
