"""Python processes that this one starts: what they need to find the same packages."""

import importlib.util
import sys

from daemon.host import start_child
from protocol.errors import ConfigError


def child_command(module: str, *arguments: str) -> list[str]:
    """How to run a module of p2pd's as a program that imports what this one would.

    >>> python, _, start_child_file, *rest = child_command("ml.averaging.process", "7")
    >>> start_child_file.endswith("start_child.py"), rest
    (True, ['ml.averaging.process', '7'])
    """
    return [sys.executable, *python_arguments(module), *arguments]


def python_arguments(module: str) -> tuple[str, ...]:
    """The arguments of Python itself for that, for what starts Python by other means."""
    return ("-P", start_child.__file__, module)


def has_torch() -> bool:
    """Whether this installation can train."""
    return importlib.util.find_spec("torch") is not None


def require_torch() -> None:
    """Raises :class:`ConfigError` in an installation that cannot train."""
    if not has_torch():
        raise ConfigError(
            "training needs torch, which this installation of p2pd lacks. In p2pd's source folder,"
            " with this environment's pip: pip install '.[train]'"
        )
