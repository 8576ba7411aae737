"""Whether this machine's copy of the task is the one that the swarm trains."""

from daemon.swarm.join_options import JoinOptions
from ml.opening import TaskOpened
from ml.task.source import read_task_source
from protocol.errors import ConfigError
from protocol.statements.swarm import NUMERICS_VERSION, UNLIMITED, SwarmStatement


def check_options(statement: SwarmStatement, options: JoinOptions) -> None:
    """Check the options before anything is loaded or connected. Raises :class:`ConfigError`."""
    task, rounds = statement.task, statement.settings.rounds
    if rounds != UNLIMITED and options.rounds > rounds:
        raise ConfigError(
            f"round {options.rounds} never comes: the swarm is complete after round {rounds}, as"
            " its founder chose; join without --rounds, or ask the founder for more ('p2pd extend')"
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
    if statement.settings.numerics != NUMERICS_VERSION:
        raise ConfigError(
            f"the swarm averages by numerics version {statement.settings.numerics}, this p2pd by"
            f" {NUMERICS_VERSION}: upgrade the older one"
        )


def check_opened(statement: SwarmStatement, opened: TaskOpened) -> None:
    """Check the task after the worker has loaded it. Raises :class:`ConfigError`."""
    task = statement.task
    if opened.manifest_digest != task.manifest_digest:
        raise ConfigError(
            "the task makes another model here than on the founder's machine (digest"
            f" {opened.manifest_digest.hex()[:16]}, expected {task.manifest_digest.hex()[:16]}):"
            " is another version of torch or of a library that the task uses installed here?"
        )
