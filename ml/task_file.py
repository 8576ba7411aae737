"""Loading tasks: built-in ones by name, a user's from a file, whose SHA-256 peers compare."""

import hashlib
import importlib
import os
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import ml.tasks
from ml.task import Task, check_module, describe_error
from protocol.errors import ConfigError

MAX_TASK_FILE_BYTES = 4 << 20

DATA_DIR_VARIABLE = "P2PD_DATA_DIR"


def load_task(task: str, *, builtin: bool) -> Task:
    """A built-in task by its name, or a task file by its path. Raises :class:`ConfigError`."""
    return load_builtin_task(task) if builtin else load_task_file(Path(task))


def load_builtin_task(name: str) -> Task:
    """A task that ships with p2pd. Raises :class:`ConfigError` for an unknown name."""
    names = sorted(module.name for module in pkgutil.iter_modules(ml.tasks.__path__))
    if name not in names:
        raise ConfigError(f"no built-in task {name!r}; there are {', '.join(names)}")
    return check_module(importlib.import_module(f"ml.tasks.{name}"), name)


def load_task_file(path: Path) -> Task:
    """The task in a Python file. Runs the file.

    Raises :class:`ConfigError` saying what is wrong with it. The digest is that of the very bytes
    that were run.
    """
    try:
        with path.open("rb") as file:
            source = file.read(MAX_TASK_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"task file {path}: {error.strerror}") from error
    if len(source) > MAX_TASK_FILE_BYTES:
        raise ConfigError(f"task file {path} is larger than {MAX_TASK_FILE_BYTES} bytes")
    digest = hashlib.sha256(source)
    module = ModuleType(f"p2pd_task_{digest.hexdigest()[:16]}")
    module.__file__ = str(path)
    # dataclasses and typing look a class's module up by its name.
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise ConfigError(f"task file {path}: {describe_error(error, module)}") from error
    return check_module(module, path.name, digest.digest())


def data_directory(chosen: str) -> Path:
    """Where data sets are: ``chosen``, else $P2PD_DATA_DIR, else a cache directory."""
    if chosen:
        return Path(chosen)
    if named := os.environ.get(DATA_DIR_VARIABLE):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "p2pd" / "data"
