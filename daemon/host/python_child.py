"""Python processes that this one starts: what they need to find the same packages."""

import importlib.util
import os
import site
import sys
from pathlib import Path

from daemon.host import start_child
from protocol.errors import ConfigError

_ROOT = str(Path(__file__).resolve().parents[2])


def child_command(module: str, *arguments: str) -> list[str]:
    """How to run a module of p2pd's as a program that imports what this one would."""
    return [sys.executable, *python_arguments(module), *arguments]


def python_arguments(module: str) -> tuple[str, ...]:
    """The same for what starts Python by itself."""
    return ("-P", start_child.__file__, module)


def child_environment() -> dict[str, str]:
    """This process's, with the place that its packages come from, where that needs to be said: what
    is on PYTHONPATH goes before the standard library."""
    if _ROOT in (*site.getsitepackages(), site.getusersitepackages()):
        return dict(os.environ)
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
