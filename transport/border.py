"""The border for bytes of strangers: whatever they make a handler raise ends here.

The rule of every border: an exception while a foreign message is handled costs the message its
effect, is counted, and is told in one short line. The process goes on. The line is short and rare
whatever is sent: a sender that could fill the disk with tracebacks could end the process.
"""

import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable

from protocol.errors import P2PDError
from protocol.text import excerpt

TOLD_EVERY_S = 60.0
"""Each kind of error is told once in so many seconds."""
MAX_LINE = 200


class Border:
    """One place where foreign messages come in."""

    def __init__(
        self, log: logging.Logger, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._monotonic = monotonic
        self._told_at: dict[str, float] = {}
        self.errors: Counter[str] = Counter()
        """How many messages failed, by the name of the error's type."""

    def failed(self, error: Exception, source: str) -> None:
        """Handling a message of ``source``'s (a few words for the log) raised ``error``."""
        kind = type(error).__name__
        self.errors[kind] += 1
        now = self._monotonic()
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


def place_of(error: BaseException) -> str:
    """The place in the code where it was raised, as ``file.py:line``."""
    last = traceback.extract_tb(error.__traceback__, limit=-1)
    return f"{last[0].filename.rpartition('/')[2]}:{last[0].lineno}" if last else "?"
