"""The kinds of path to another peer: one name for each in code, log, status and commands."""

import enum


class PathKind(enum.StrEnum):
    """The kind of path that a peer's session uses now, or that there is none (yet).

    >>> PathKind("relay") is PathKind.RELAY
    True
    """

    DIRECT = "direct"
    PUNCHED = "punched"
    ICE = "ice"
    RELAY = "relay"
    CONNECTING = "connecting"
    FAILED = "failed"
