"""Python processes that this one starts: what they need to find the same packages."""

import importlib.util
import os
from pathlib import Path

from protocol.errors import ConfigError

_ROOT = str(Path(__file__).resolve().parents[2])


def child_environment() -> dict[str, str]:
    """This process's, with the place that its packages come from, installed or not."""
    inherited = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": f"{_ROOT}{os.pathsep}{inherited}" if inherited else _ROOT,
    }


def require_torch() -> None:
    """Raises :class:`ConfigError` in an installation that cannot train."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(
            "training needs torch, which this installation of p2pd lacks. In p2pd's source folder,"
            " with this environment's pip: pip install '.[train]'"
        )
