"""The state of a script's optimizer: kept on disk from round to round, so that it survives a kill.

It never travels: in DiLoCo (arXiv 2311.08105, algorithm 1) the average replaces each peer's model,
and each peer's moments stay its own. Where what is found does not fit, it begins anew, and the log
says so. Each rank keeps its own part.
"""

import logging
import threading
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from p2pd.tensor_dict_file import read_tensor_dict, write_tensor_dict

logger = logging.getLogger("p2pd")


class InnerState:
    """Of one optimizer; written by a thread of its own, so that no step waits for the disk."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._file: Path | None = None
        self._writing: threading.Thread | None = None

    def load(self, file: Path) -> None:
        """Take up what an earlier process left in ``file``, and keep it there from now on. Where
        the optimizer has a state by then, that one stays."""
        self._file = file
        if self._optimizer.state or not file.exists():
            return
        try:
            saved = read_tensor_dict(file)
            groups = self._optimizer.state_dict()["param_groups"]
            state = self._placed(saved["state"])
            self._optimizer.load_state_dict({"state": state, "param_groups": groups})
        except Exception as error:  # whatever torch makes of a damaged file
            self._optimizer.state.clear()
            logger.warning("the optimizer's state begins anew: %s: %s", file, error)

    def save(self) -> None:
        """Write the state as it is now; returns before it is on disk."""
        self.settle()
        if self._file is None:
            return
        content = {"state": _copied(self._optimizer.state_dict()["state"])}
        self._writing = threading.Thread(
            target=self._write, args=(content, self._file), daemon=True
        )
        self._writing.start()

    def settle(self) -> None:
        """Wait until what is being written is written."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None

    def _write(self, content: dict[str, Any], path: Path) -> None:
        try:
            write_tensor_dict(path, content)
        except (OSError, RuntimeError) as error:
            logger.warning("the optimizer would begin anew after a restart: %s", error)

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
