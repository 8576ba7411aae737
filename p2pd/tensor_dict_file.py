"""A dictionary of tensors in a file of this peer's own: whole or not at all, and no code in it.

For what a trainer keeps for itself, such as an optimizer's moments; nothing of it ever travels.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as directory:
...     path = Path(directory) / "optimizer"
...     write_tensor_dict(path, {"round": 3, "momentum": torch.tensor([0.5])})
...     read_tensor_dict(path)["momentum"]
tensor([0.5000])
"""

import os
from pathlib import Path
from typing import Any

import torch

FORMAT = 1


def write_tensor_dict(path: Path, content: dict[str, Any]) -> None:
    """Have ``path`` hold ``content``, on disk. Raises :class:`OSError`, and :class:`RuntimeError`,
    by which torch tells of a full disk."""
    temporary = path.with_suffix(".tmp")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with temporary.open("wb") as file:
        torch.save({"format": FORMAT, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_tensor_dict(path: Path) -> dict[str, Any]:
    """What was written there, on the CPU. Raises whatever torch makes of a damaged file, and
    :class:`ValueError` for one of another format."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if content["format"] != FORMAT:
        raise ValueError(f"of format {content['format']}")
    return content
