"""The document that the page asks for again and again: the status and the history in one
document."""

import msgspec

from daemon.control.history import History
from daemon.control.status import SCHEMA, Status


class PageState(msgspec.Struct, frozen=True, kw_only=True):
    """All that the page shows."""

    schema: int = SCHEMA
    status: Status
    history: History
    """Its rounds are those after the round that the page asked for."""
