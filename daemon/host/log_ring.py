"""The last log lines in memory, for ``p2pd logs`` and ``p2pd bugreport``.

Bounded by lines and by characters a line; what is dropped is what is oldest. The lines are escaped
and without secrets already (daemon/host/logs.py).
"""

import logging
from collections import deque

from daemon.host.log_line import LogLine
from daemon.host.logs import LogFormatter

MAX_LINES = 2000
MAX_CHARACTERS = 2000
"""The longest line, with its traceback."""


class LogRing(logging.Handler):
    """Keeps what is logged, whatever thread logs it.

    >>> ring = LogRing()
    >>> for text in ("round 1", "round 2", "round 3"):
    ...     ring.emit(logging.makeLogRecord({"msg": text}))
    >>> [line.text for line in ring.after(1)]
    ['round 2', 'round 3']
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(LogFormatter(for_journal=False, message_only=True))
        self._lines: deque[LogLine] = deque(maxlen=MAX_LINES)
        self._number = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record; logging holds its lock around this."""
        self._number += 1
        self._lines.append(
            LogLine(
                number=self._number,
                time=record.created,
                level=record.levelname.lower(),
                logger=record.name,
                text=self.format(record)[:MAX_CHARACTERS],
            )
        )

    def after(self, number: int) -> list[LogLine]:
        """The lines behind ``number``, the oldest first."""
        self.acquire()
        try:
            return [line for line in self._lines if line.number > number]
        finally:
            self.release()
