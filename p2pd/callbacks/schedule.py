"""A trainer's own schedules of learning rates, kept where the swarm is: who comes in round 500, or
back after a kill, goes on with the learning rate of round 500."""

import copy
import warnings
from collections.abc import Iterable
from typing import Any

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


class Schedule:
    """Of schedulers that the trainer itself steps once after each step of the optimizer.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    >>> schedule = Schedule([scheduler])
    >>> schedule.follow(4, begins=True)
    >>> optimizer.param_groups[0]["lr"]
    0.2
    """

    def __init__(self, schedulers: Iterable[Any]) -> None:
        """One that goes by a metric is left alone."""
        plain = [getattr(one, "scheduler", one) for one in schedulers]  # as accelerate has it
        self._schedulers = [
            one
            for one in plain
            if isinstance(one, LRScheduler) and not isinstance(one, ReduceLROnPlateau)
        ]
        self._begun = [_kept(one) for one in self._schedulers]
        """As they were when the round began, to which one that is abandoned goes back."""

    def follow(self, steps: int, *, begins: bool) -> None:
        """Be where the swarm is; ``begins``: a round begins there."""
        with warnings.catch_warnings():
            # "step() before the optimizer's step()": these steps were made by others.
            warnings.simplefilter("ignore")
            for scheduler, (state, rates) in zip(self._schedulers, self._begun, strict=True):
                if steps < scheduler.last_epoch and state["last_epoch"] <= steps:
                    scheduler.load_state_dict(state)
                    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                        group["lr"] = rate
                while scheduler.last_epoch < steps:
                    scheduler.step()
        if begins:
            self._begun = [_kept(one) for one in self._schedulers]


def _kept(scheduler: LRScheduler) -> tuple[dict[str, Any], list[Any]]:
    rates = [group["lr"] for group in scheduler.optimizer.param_groups]
    return copy.deepcopy((scheduler.state_dict(), rates))
