"""The border for bytes of strangers: whatever they make a handler raise ends here.

The rule of every border: an exception while a foreign message is handled, expected or not, costs
the message its effect or the sender its connection, is counted, and is told in one short line. The
process goes on. The line is short and rare whatever is sent: a sender that could fill the disk
with tracebacks could end the process.

A :class:`Border` counts by the kind of error, where nobody has signed. Where a peer has, its
refusals are counted instead (``daemon/net/refusals.py``). Where the sender loses the connection,
:func:`refused` makes of any exception the one that the connection is closed with.

>>> border = Border(logging.getLogger("example"))
>>> try:
...     int("what a stranger sent")
... except Exception as error:
...     border.failed(error, "192.0.2.1")
>>> border.errors
Counter({'ValueError': 1})
>>> refused(ExceptionGroup("tasks", [RemoteProtocolError("message of 3 bytes")]))
RemoteProtocolError('message of 3 bytes')
"""

import logging
import traceback
from collections import Counter

from protocol.errors import P2PDError, RemoteProtocolError
from protocol.text import excerpt
from transport.clock import Clock

TOLD_EVERY_S = 60.0
"""Each kind of error is told once in so many seconds."""
MAX_LINE = 200


class Border:
    """One place where foreign messages come in."""

    def __init__(self, log: logging.Logger, clock: Clock | None = None) -> None:
        self._log = log
        self._clock = clock or Clock()
        self._told_at: dict[str, float] = {}
        self.errors: Counter[str] = Counter()
        """How many messages failed, by the name of the error's type."""

    def failed(self, error: Exception, source: str) -> None:
        """Handling a message of ``source``'s (a few words for the log) raised ``error``."""
        kind = type(error).__name__
        self.errors[kind] += 1
        now = self._clock.monotonic()
        if now - self._told_at.get(kind, now - TOLD_EVERY_S) < TOLD_EVERY_S:
            return
        self._told_at[kind] = now
        # One that p2pd raised says all itself; of another its place in the code is wanted.
        where = "" if isinstance(error, P2PDError) else f" at {place_of(error)}"
        self._log.warning(
            "a message of %s was dropped: %s: %s%s (%d so far)",
            source,
            kind,
            excerpt(str(error), MAX_LINE),
            where,
            self.errors[kind],
        )
        self._log.debug("the trace of the last one", exc_info=error)


def refused(error: Exception) -> P2PDError:
    """``error``, as the error that tells whose fault it is.

    What nobody raised on purpose is a slip of this program's, and the sender's fault all the same:
    who keeps to the protocol never meets it. The text says where it was, for whoever mends it.
    """
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, P2PDError):
        return error
    return RemoteProtocolError(f"unexpected {type(error).__name__} at {place_of(error)}: {error}")


def place_of(error: BaseException) -> str:
    """The place in the code where it was raised, as ``file.py:line``."""
    last = traceback.extract_tb(error.__traceback__, limit=-1)
    return f"{last[0].filename.rpartition('/')[2]}:{last[0].lineno}" if last else "?"
