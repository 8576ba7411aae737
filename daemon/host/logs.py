"""Log lines: to standard error, one record a line, safe to read and without secrets."""

import logging
import re
import sys
from collections.abc import Mapping

from protocol.text import printable

_INVITE = re.compile(r"p2pd:[A-Za-z0-9_-]{16,}")
_SYSLOG_PRIORITY = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class LogFormatter(logging.Formatter):
    r"""Escapes what a terminal could act on and blots out invite links, whoever logs them.

    >>> said = "joining p2pd:AbCdEfGhIjKlMnOpQrSt" + chr(27)
    >>> record = logging.makeLogRecord({"levelno": 20, "name": "p2pd.peer", "msg": said})
    >>> print(LogFormatter(for_journal=True).format(record))
    <6>p2pd.peer: joining p2pd:[redacted]\x1b
    """

    def __init__(self, *, for_journal: bool, message_only: bool = False) -> None:
        """``for_journal``: with sd-daemon(3)'s priority, and without the time, which it has.
        ``message_only``: without time, level and name, for who keeps them apart."""
        with_name = "%(name)s: %(message)s"
        full = f"%(asctime)s %(levelname)-7s {with_name}"
        super().__init__("%(message)s" if message_only else with_name if for_journal else full)
        self._for_journal = for_journal

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record itself, on one line whatever is in it."""
        return printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """One line a record; a traceback's lines follow it, indented."""
        text = _INVITE.sub("p2pd:[redacted]", super().format(record))
        first, *traceback = text.split("\n")
        lines = [first, *("    " + printable(line) for line in traceback)]
        if self._for_journal:
            prefix = f"<{_SYSLOG_PRIORITY.get(record.levelno, 6)}>"
            return "\n".join(prefix + line for line in lines)
        return "\n".join(lines)


def set_up_logging(level: str, environ: Mapping[str, str]) -> None:
    """Log from ``level`` (``debug`` to ``error``) on; under systemd in the journal's form."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = LogFormatter(for_journal="JOURNAL_STREAM" in environ)
    formatter.default_time_format = "%H:%M:%S"
    formatter.default_msec_format = "%s.%03d"
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler])
    set_log_level(level)


def set_log_level(level: str) -> None:
    """Log from ``level`` (``debug`` to ``error``) on."""
    logging.getLogger().setLevel(level.upper())
    # These tell of every connection and request; their troubles come as warnings.
    for chatty in ("aiohttp", "aioice", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
    # To qh3, which logs under these names, it is a warning when the other side ends a connection.
    for chatty in ("quic", "http3"):
        logging.getLogger(chatty).setLevel(max(logging.ERROR, logging.getLogger().level))
