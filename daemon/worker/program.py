"""The two programs that a peer's daemon starts, and the messages that they understand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ml.averaging import messages as averager
from p2pd import messages as trainer
from p2pd.channel import MAX_BODY_BYTES
from protocol.codec import decode, encode
from protocol.errors import RemoteProtocolError

NEEDED_VARIABLES = (
    *("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE"),
    *("TZ", "TMPDIR", "HOME"),
)
"""Others may hold secrets (tokens, keys), which are none of what strangers' bytes could reach."""

Message = trainer.FromTrainer | averager.FromAverager


@dataclass(frozen=True, slots=True)
class Program:
    """One of them."""

    name: str
    module: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Message]
    """Raises :class:`RemoteProtocolError`."""
    shutdown: Any
    """The request that ends it."""
    environment: tuple[str, ...] | None
    """The variables that it gets to see; None: all."""
    niceness: int = 0
    """How much less of the processor it gets than this process."""


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
    module="ml.training",
    encode=trainer.encode,
    decode=_decode_from_trainer,
    shutdown=trainer.Shutdown(),
    environment=None,
)
AVERAGER = Program(
    name="averager",
    module="ml.averaging",
    encode=encode,
    decode=_decode_from_averager,
    shutdown=averager.Shutdown(),
    environment=NEEDED_VARIABLES,
)
