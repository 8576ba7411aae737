"""The two programs that a peer's daemon starts, and the messages that they understand.

>>> from pathlib import Path
>>> trainer_by_command(Command(("python", "train.py"), Path("/run/ann"))).name
'script'
>>> TRAINER.decode(b"no message")  # doctest: +ELLIPSIS
Traceback (most recent call last):
...
protocol.errors.RemoteProtocolError: ...
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from daemon.host.python_child import has_torch
from daemon.worker.fork_server import Forkable, TrainerLaunch
from daemon.worker.launch import Launch, PythonModule
from daemon.worker.pulse import COMMAND_SILENCE_S, SCRIPT_SILENCE_S
from daemon.worker.script import Command, OwnScript
from ml.averaging import messages as averager
from p2pd import messages as trainer
from p2pd.channel import MAX_BODY_BYTES
from protocol.codec import decode, encode
from protocol.errors import RemoteProtocolError

TRAINING = PythonModule("ml.training")
AVERAGING = PythonModule("ml.averaging", sees_little=True)

Message = trainer.FromTrainer | averager.FromAverager


@dataclass(frozen=True, slots=True)
class Program:
    """A program that the daemon starts as the trainer or the averager."""

    name: str
    launch: Launch
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Message]
    """Raises :class:`RemoteProtocolError`."""
    shutdown: Any
    """The request that ends it."""
    niceness: int = 0
    """How much less of the processor it gets than this process."""
    needs_torch: bool = False
    """Whether it does nothing without torch in this installation."""
    silent_for_s: float = 0.0
    """How much silence is nothing to worry about, if more than a healthy child's of p2pd's own."""


def _decode_from_trainer(body: bytes) -> Message:
    try:
        return trainer.decode_from_trainer(body)
    except trainer.MalformedMessageError as error:
        raise RemoteProtocolError(str(error)) from error


def _decode_from_averager(body: bytes) -> Message:
    message: averager.FromAverager = decode(body, averager.FromAverager, max_bytes=MAX_BODY_BYTES)
    return message


TRAINER = Program(
    name="trainer",
    launch=TrainerLaunch(TRAINING),
    encode=trainer.encode,
    decode=_decode_from_trainer,
    shutdown=trainer.Shutdown(),
    needs_torch=True,
)
AVERAGER = Program(
    name="averager",
    launch=Forkable(AVERAGING),
    encode=encode,
    decode=_decode_from_averager,
    shutdown=averager.Shutdown(),
)


def averager_in(directories: Sequence[Path]) -> Program:
    """The averager, which gets to no files but those in ``directories``; none: to all."""
    arguments = tuple(map(str, directories))
    return replace(AVERAGER, launch=Forkable(replace(AVERAGING, arguments=arguments)))


def begun_trainer() -> Program:
    """p2pd's own trainer, the first of which starts now and waits until it is launched."""
    launch = TrainerLaunch(TRAINING)
    if has_torch():
        launch.begin()
    return replace(TRAINER, launch=launch)


def trainer_by_command(command: Command) -> Program:
    """A trainer that a command of the user's is."""
    return _script(command, COMMAND_SILENCE_S)


def trainer_by_script(script: OwnScript) -> Program:
    """A trainer that the script is which started this daemon. Nobody would start it again."""
    return _script(script, SCRIPT_SILENCE_S)


def _script(launch: Launch, silent_for_s: float) -> Program:
    return replace(
        TRAINER, name="script", launch=launch, needs_torch=False, silent_for_s=silent_for_s
    )
