"""The document that ``p2pd history --json`` prints: the last rounds, and the one at hand.

Schema 1, under the same promise as the status document (daemon/control/status.py).
"""

import msgspec

from daemon.control.status import SCHEMA
from daemon.rounds.record.round_record import RoundRecord


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The rounds of one peer since it started, as it saw them."""

    schema: int = SCHEMA
    peer_id: str
    now: float
    """Unix seconds, by the clock that ``started_at`` of the rounds goes by."""
    evaluate: str = ""
    """Who evaluates states, as the founder chose: ``each`` peer, one in ``turn``, ``none``; empty:
    not known."""
    rounds: list[RoundRecord] = []
    """Those that are over, the oldest first; the last 512 at most."""
    current: RoundRecord | None = None
    """The round at hand; null before the task is loaded, and in a peer that only observes."""
    step: int | None = None
    """How many steps of the round's local training are done; null unless it trains."""
    waits_for: list[str] = []
    """Ids of the peers whose updates the round at hand waits for."""
    waiting: str = ""
    """What the round at hand, or its beginning, lacks, in words."""
    closes_in_s: float | None = None
    """After so long the round waits for nobody any more; null when it does not wait."""


def encode_history(history: History) -> bytes:
    """The JSON document."""
    return msgspec.json.encode(history)


def decode_history(data: bytes) -> History:
    """The history in a JSON document. Raises :class:`msgspec.DecodeError`.

    >>> decode_history(b'{"schema": 1, "peer_id": "ann", "now": 9.5, "step": 12}').step
    12
    """
    return msgspec.json.decode(data, type=History)
