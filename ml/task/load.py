"""Loading tasks: built-in ones by name, a user's from a file, whose SHA-256 peers compare."""

import importlib
import os
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import ml.task.builtin
from ml.rules.round_rules import parse_rules
from ml.task.shards import Partition
from ml.task.source import read_task_source
from ml.task.task import Task, check_module
from ml.task.words import describe_error
from protocol.errors import ConfigError

DATA_DIR_VARIABLE = "P2PD_DATA_DIR"


def load_task(task: str, *, builtin: bool, file_sha256: bytes = b"") -> Task:
    """A built-in task by its name, or a task file by its path. Raises :class:`ConfigError`.

    ``file_sha256``: what the file has to be; empty: anything.
    """
    return load_builtin_task(task) if builtin else load_task_file(Path(task), file_sha256)


def load_builtin_task(name: str) -> Task:
    """A task that ships with p2pd. Raises :class:`ConfigError` for an unknown name.

    >>> load_builtin_task("digits").batch_size
    32
    >>> load_builtin_task("digit")
    Traceback (most recent call last):
    protocol.errors.ConfigError: no built-in task 'digit'; there are digits, mnist
    """
    names = sorted(module.name for module in pkgutil.iter_modules(ml.task.builtin.__path__))
    if name not in names:
        raise ConfigError(f"no built-in task {name!r}; there are {', '.join(names)}")
    return _checked(importlib.import_module(f"ml.task.builtin.{name}"), name)


def load_task_file(path: Path, file_sha256: bytes = b"") -> Task:
    """The task in a Python file. Runs the file, unless it is another than ``file_sha256`` says.

    Raises :class:`ConfigError` saying what is wrong with it. The digest is that of the very bytes
    that were run.
    """
    source = read_task_source(path)
    if file_sha256 not in (b"", source.sha256):
        raise ConfigError(
            f"task file {path} is not the swarm's any more: its SHA-256 is {source.sha256.hex()},"
            f" the swarm's {file_sha256.hex()}; put the very same file back"
        )
    module = ModuleType(f"p2pd_task_{source.sha256.hex()[:16]}")
    module.__file__ = str(path)
    # dataclasses and typing look a class's module up by its name.
    sys.modules[module.__name__] = module
    try:
        exec(compile(source.text, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        hint = ""
        if isinstance(error, ImportError) and (path.parent / f"{error.name}.py").exists():
            hint = f"; a task is one file, which peers compare: move into it what {error.name} has"
        raise ConfigError(f"task file {path}: {describe_error(error, module)}{hint}") from error
    return _checked(module, path.name, source.sha256)


def _checked(module: ModuleType, name: str, file_sha256: bytes = b"") -> Task:
    """The module's task, whose suggestion a swarm could be founded with as it is."""
    task = check_module(module, name, file_sha256)
    try:
        parse_rules(task.suggestion)
        Partition.parse(task.suggestion.partition)
    except ConfigError as error:
        raise ConfigError(f"task {name}: ROUND: {error}") from error
    return task


def data_directory(chosen: str) -> Path:
    """The directory of data sets: ``chosen``, else $P2PD_DATA_DIR, else a cache directory.

    Raises :class:`ConfigError` for a user without a home.
    """
    if chosen:
        return Path(chosen)
    if named := os.environ.get(DATA_DIR_VARIABLE):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(cache):
        raise ConfigError(
            f"this user has no home directory to look for data in: set {DATA_DIR_VARIABLE}, or give"
            " --data-dir DIR"
        )
    return Path(cache) / "p2pd" / "data"
