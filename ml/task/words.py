"""What a task's functions did, in words for its author."""

import traceback
from pathlib import Path
from types import ModuleType

import numpy as np
import torch


def describe_error(error: BaseException, module: ModuleType) -> str:
    """Type, message, and the last line of ``module`` that led there."""
    path = getattr(module, "__file__", None)
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path
    ]
    place = f" (line {lines[-1]} of {Path(path).name})" if path and lines else ""
    return f"{type(error).__name__}: {error}{place}"


def described(value: object) -> str:
    """What kind of thing ``value`` is."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} of shape {list(value.shape)}"
    if value is None:
        return "None"
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"
