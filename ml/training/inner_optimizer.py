"""The inner optimizer: what moves the model in local steps, and lives through the rounds.

In DiLoCo (arXiv 2311.08105, algorithm 1) the averaged model replaces each peer's, and each peer's
moments stay its own. They never travel. Beginning anew costs: moments that take hundreds of steps
to settle are thrown away in every round.

Its state lies in a file of the trainer's, written while the round's updates travel, so that it
survives the process; where that is lost it begins anew. The schedule follows the swarm's steps and
not this peer's: who joins in round 500 begins with the learning rate of round 500.
"""

import logging
import math
import re
import threading
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ml.task.task import Task
from p2pd.tensor_dict_file import read_tensor_dict, write_tensor_dict

KEPT = 2
"""Rounds: the last one may have to be trained again, from where it began."""

logger = logging.getLogger(__name__)


class InnerOptimizer:
    """One model's; used by one thread at a time."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        *,
        total_steps: int | None = None,
        file: Path | None = None,
    ) -> None:
        """``total_steps``: of the whole training, as far as that has an end; ``file``: beside
        it, with the round in the name, the state survives this process.
        """
        self._model = model
        self._task = task
        self._total_steps = total_steps
        self._file = file
        self._optimizers: list[torch.optim.Optimizer] = []
        self._schedulers: list[Any] = []
        self._scheduled = 0
        """The step that the schedule is at."""
        self._in_round = False
        self._round = 0
        """The last that was begun."""
        self._steps = self._rounds = 0
        """How many this peer has made, for rounds that have no number of steps."""
        self._saving: threading.Thread | None = None

    def begin(self, round_number: int, steps_a_round: float) -> None:
        """Be ready for the steps of a round; the schedule goes to where the swarm is.

        ``steps_a_round``: infinity where only time counts; then the mean of this peer's rounds is
        taken for those of all. Raises :class:`ConfigError` for what the task gets wrong.
        """
        self.settle()
        if self._in_round or not self._optimizers or round_number <= self._round:
            # The one before was abandoned, or is made again, and comes to the same bits then.
            self._make(round_number)
        self._in_round, self._round = True, round_number
        if steps_a_round == math.inf:
            steps_a_round = self._steps / max(self._rounds, 1)
        self._go_to(round((round_number - 1) * steps_a_round))

    def clear_gradients(self) -> None:
        """Before each step's gradients, and after the last: they are as large as the model."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Move the model by its gradients, and the schedule by a step."""
        for optimizer in self._optimizers:
            self._task.step(optimizer)
        for scheduler in self._schedulers:
            self._task.step_scheduler(scheduler)
        self._scheduled += 1
        self._steps += 1

    def end(self) -> None:
        """The round's steps are made. Its state is saved meanwhile: see :meth:`settle`."""
        self.clear_gradients()
        self._in_round = False
        self._rounds += 1
        if self._file is not None:
            self._saving = threading.Thread(target=self._save, name="saves the inner optimizer")
            self._saving.start()

    def settle(self) -> None:
        """Wait until what is being saved is saved."""
        if self._saving is not None:
            self._saving.join()
            self._saving = None

    def _make(self, round_number: int) -> None:
        self._optimizers = self._task.make_optimizers(self._model.parameters())
        self._load(round_number)
        self._schedulers = self._task.make_schedulers(self._optimizers, self._total_steps)
        self._scheduled = 0

    def _go_to(self, step: int) -> None:
        """Move the schedule forward; a peer that made fewer steps than others catches up."""
        with warnings.catch_warnings():
            # "step() before the optimizer's step()": these steps were made by others.
            warnings.simplefilter("ignore")
            while self._schedulers and self._scheduled < step:
                for scheduler in self._schedulers:
                    self._task.step_scheduler(scheduler)
                self._scheduled += 1

    def _load(self, round_number: int) -> None:
        """Take up what the last round before this one left, in this process or an earlier one."""
        earlier = [path for number, path in self._saved() if number < round_number]
        if not earlier:
            return
        try:
            saved = read_tensor_dict(earlier[-1])
            for optimizer, state in zip(self._optimizers, saved["states"], strict=True):
                groups = optimizer.state_dict()["param_groups"]
                optimizer.load_state_dict({"state": state, "param_groups": groups})
            self._steps, self._rounds = saved["steps"], saved["rounds"]
        except Exception as error:  # whatever torch makes of a damaged file
            logger.warning("the inner optimizer begins anew: %s: %s", earlier[-1], error)
            self._optimizers = self._task.make_optimizers(self._model.parameters())

    def _saved(self) -> list[tuple[int, Path]]:
        """Round and file of each that is kept, the oldest first."""
        if self._file is None:
            return []
        pattern = re.compile(rf"{self._file.stem}-(\d{{8,}}){self._file.suffix}")
        found = [
            (int(match[1]), path)
            for path in self._file.parent.glob(f"{self._file.stem}-*")
            if (match := pattern.fullmatch(path.name))
        ]
        return sorted(found)

    def _save(self) -> None:
        assert self._file is not None
        content = {
            "steps": self._steps,
            "rounds": self._rounds,
            "states": [optimizer.state_dict()["state"] for optimizer in self._optimizers],
        }
        path = self._file.with_name(f"{self._file.stem}-{self._round:08d}{self._file.suffix}")
        try:
            # Under one name first: a kill in between leaves no more than one file behind.
            write_tensor_dict(self._file, content)
            self._file.replace(path)
            for _, old in self._saved()[:-KEPT]:
                old.unlink()
        except (OSError, RuntimeError) as error:
            logger.warning("the inner optimizer would begin anew after a restart: %s", error)
