"""One log line as documents have it. Light on purpose: commands that only show it load no more."""

import msgspec


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """What was logged, and when.

    >>> line = LogLine(number=7, time=0.5, level="info", logger="p2pd.peer", text="round 3")
    >>> msgspec.json.encode(line).decode()
    '{"number":7,"time":0.5,"level":"info","logger":"p2pd.peer","text":"round 3"}'
    """

    number: int
    """Counts from 1 since the peer started, without gaps."""
    time: float
    """Unix seconds."""
    level: str
    """``debug``, ``info``, ``warning``, ``error`` or ``critical``."""
    logger: str
    text: str
    """Escaped; the lines of a traceback follow the first, indented."""
