"""Whether this machine's copy of the task is the one that the swarm trains."""

from collections.abc import Sequence

from daemon.swarm.join_options import JoinOptions
from ml.opening import TaskOpened
from ml.state.manifest import FROZEN_PREFIX_BYTES, FrozenTensor
from ml.task.source import read_task_source
from protocol.errors import ConfigError
from protocol.statements.swarm import NUMERICS_VERSION, UNLIMITED, SwarmStatement


def check_options(statement: SwarmStatement, options: JoinOptions) -> None:
    """Check the options before anything is loaded or connected. Raises :class:`ConfigError`.

    >>> from types import SimpleNamespace as Says
    >>> statement = Says(task=Says(builtin=True, name="digits"), settings=Says(rounds=20))
    >>> check_options(statement, Says(rounds=30))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    protocol.errors.ConfigError: round 30 never comes: the swarm is complete after round 20, as ...
    """
    task, rounds = statement.task, statement.settings.rounds
    if rounds != UNLIMITED and options.rounds > rounds:
        raise ConfigError(
            f"round {options.rounds} never comes: the swarm is complete after round {rounds}, as"
            " its founder chose; join without --rounds, or ask the founder for more ('p2pd extend')"
        )
    if options.by_script:
        _check_numerics(statement)
        return
    if not task.builtin and not task.file_sha256:
        raise ConfigError(
            f"the swarm's members train {task.name!r} with scripts of their own: join it with"
            " 'p2pd join LINK -- python train.py', or by p2pd.join(LINK, model) in the script"
        )
    if task.builtin and options.task_file is not None:
        raise ConfigError(
            f"the swarm trains the built-in task {task.name!r}: join it without --task"
        )
    if not task.builtin and options.task_file is None:
        raise ConfigError(
            f"the swarm trains a task of its founder's, {task.name!r}: get that file from whoever"
            " invited you (code never travels by itself), read it, and join with --task FILE"
        )
    if options.task_file is not None:
        sha256 = read_task_source(options.task_file).sha256
        if sha256 != task.file_sha256:
            raise ConfigError(
                f"the task file {options.task_file} differs from the founder's {task.name!r}: its"
                f" SHA-256 is {sha256.hex()}, the swarm's {task.file_sha256.hex()}; get the very"
                " same file"
            )
    _check_numerics(statement)


def _check_numerics(statement: SwarmStatement) -> None:
    if statement.settings.numerics != NUMERICS_VERSION:
        raise ConfigError(
            f"the swarm averages by numerics version {statement.settings.numerics}, this p2pd by"
            f" {NUMERICS_VERSION}: upgrade the older one"
        )


MAX_FROZEN_BYTES = 16 * 1024
"""A quarter of what a swarm statement may have."""


def frozen_prefixes(frozen: Sequence[FrozenTensor]) -> bytes:
    """What a statement says of the tensors that do not travel; nothing where they are too many."""
    prefixes = b"".join(one.prefix for one in frozen)
    return prefixes if len(prefixes) <= MAX_FROZEN_BYTES else b""


def check_opened(statement: SwarmStatement, opened: TaskOpened) -> None:
    """Check the task after the worker has loaded it. Raises :class:`ConfigError`."""
    task = statement.task
    if opened.manifest_digest != task.manifest_digest:
        if other := _another_frozen(task.frozen, opened.frozen):
            raise ConfigError(
                f"{other.name}, which stays as it is in training, has other numbers here than on"
                f" the founder's machine (its SHA-256 is {other.sha256.hex()}): get the very file"
                " that the founder's model() loads it from, and put it where the task looks for it"
            )
        raise ConfigError(
            "the task makes another model here than on the founder's machine (digest"
            f" {opened.manifest_digest.hex()[:16]}, expected {task.manifest_digest.hex()[:16]}):"
            " is another version of torch or of a library that the task uses installed here?"
        )


def _another_frozen(prefixes: bytes, frozen: Sequence[FrozenTensor]) -> FrozenTensor | None:
    """The first of this machine's tensors that is not the founder's, as far as that can be told."""
    if len(prefixes) != FROZEN_PREFIX_BYTES * len(frozen):
        return None
    for index, one in enumerate(frozen):
        begin = index * FROZEN_PREFIX_BYTES
        if prefixes[begin : begin + FROZEN_PREFIX_BYTES] != one.prefix:
            return one
    return None
