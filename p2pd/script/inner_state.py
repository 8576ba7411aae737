"""The state of a script's optimizer: kept on disk from round to round, so that it survives a kill.

It never travels: in DiLoCo (arXiv 2311.08105, algorithm 1) the average replaces each peer's model,
and each peer's moments stay its own. Where what is found does not fit, it begins anew, and the log
says so. Each rank keeps its own part, of the last two rounds: one that was killed before another
one had written the last leaves them with the one before, and all ranks go on from one round.
"""

import logging
import re
import threading
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from p2pd.script.ranks import Ranks
from p2pd.tensor_dict_file import read_tensor_dict, write_tensor_dict

KEPT = 2

logger = logging.getLogger("p2pd")


class InnerState:
    """Of one optimizer; written by a thread of its own, so that no step waits for the disk.

    All ranks make the same calls.
    """

    def __init__(self, optimizer: Optimizer, ranks: Ranks) -> None:
        """Nothing is written before :meth:`load` has said where."""
        self._optimizer = optimizer
        self._ranks = ranks
        self._directory: Path | None = None
        self._writing: threading.Thread | None = None

    def load(self, directory: Path, round_number: int) -> None:
        """Take up what an earlier process left in ``directory`` after ``round_number`` at the
        latest, and keep it there from now on. Where the optimizer has a state, that one stays."""
        if self._directory == directory:
            return
        self._directory = directory
        newest = max((one for one in self._saved() if one <= round_number), default=0)
        common = self._ranks.least(-1 if self._optimizer.state else newest)
        if common < 0:
            return
        is_loaded = bool(common) and self._load(self._path(common))
        if self._ranks.least(int(is_loaded)):
            return
        self._optimizer.state.clear()
        if newest:
            logger.warning("the optimizer's state begins anew, at all ranks")

    def forget(self) -> None:
        """Begin anew."""
        self._optimizer.state.clear()

    def save(self, round_number: int) -> None:
        """Write the state as it is after that round; returns before it is on disk."""
        self.settle()
        if self._directory is None:
            return
        content = {"state": _copied(self._optimizer.state_dict()["state"])}
        self._writing = threading.Thread(
            target=self._write, args=(content, round_number), daemon=True
        )
        self._writing.start()

    def settle(self) -> None:
        """Wait until what is being written is written."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None

    def _load(self, path: Path) -> bool:
        """Whether it was there, and fits."""
        try:
            saved = read_tensor_dict(path)
            groups = self._optimizer.state_dict()["param_groups"]
            state = self._placed(saved["state"])
            self._optimizer.load_state_dict({"state": state, "param_groups": groups})
        except Exception as error:  # whatever torch makes of a damaged file
            logger.warning("the optimizer's state cannot be taken up: %s: %s", path, error)
            return False
        return True

    def _write(self, content: dict[str, Any], round_number: int) -> None:
        try:
            write_tensor_dict(self._path(round_number), content)
            for number, path in self._saved().items():
                if not round_number - KEPT < number <= round_number:
                    path.unlink()
        except (OSError, RuntimeError) as error:
            logger.warning("the optimizer would begin anew after a restart: %s", error)

    def _path(self, round_number: int) -> Path:
        assert self._directory is not None
        return self._directory / f"{self._ranks.number}-{round_number:08d}.pt"

    def _saved(self) -> dict[int, Path]:
        """This rank's files, by round."""
        assert self._directory is not None
        mine = re.compile(rf"{self._ranks.number}-(\d{{8,}})\.pt")
        found = ((mine.fullmatch(path.name), path) for path in self._directory.glob("*.pt"))
        return {int(match[1]): path for match, path in found if match}

    def _placed(self, state: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """With this rank's parts of sharded tensors as such, as the parameters have them."""
        parameters = [one for group in self._optimizer.param_groups for one in group["params"]]
        return {
            index: {name: _like(parameters[index], value) for name, value in values.items()}
            for index, values in state.items()
        }


def _copied(value: Any) -> Any:
    """Copies on the CPU, of sharded tensors this rank's part."""
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    if isinstance(value, DTensor):
        value = value.to_local()
    return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else value


def _like(parameter: torch.Tensor, value: Any) -> Any:
    if not isinstance(parameter, DTensor) or not isinstance(value, torch.Tensor):
        return value
    if value.shape != parameter.to_local().shape:
        return value  # a count of steps
    return DTensor.from_local(
        value.to(parameter.to_local().device),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
