"""Decides what a client has to send, and when, so that its lease stands. Sans-IO.

ANNOUNCE ──sent──▶ WAITING ──granted──▶ RENEW ──sent──▶ WAITING
   ▲                  │
   └──── refused ◀────┘
"""

import enum
from random import Random

from transport.backoff import Backoff, bounded_wait_s

REFUSED_FIRST_S = 5.0
REFUSED_MOST_S = 120.0


class LeaseState(enum.Enum):
    """The state of a lease."""

    ANNOUNCE = "announce"
    """The record has to be sent, when it is time."""
    RENEW = "renew"
    """The lease stands; a heartbeat has to be sent, when it is time."""
    WAITING = "waiting"
    """Something was sent."""


class LeaseKeeper:
    """The lease of one record. Times are monotonic seconds."""

    def __init__(self, random: Random, now: float) -> None:
        self._backoff = Backoff(REFUSED_FIRST_S, REFUSED_MOST_S, random)
        self._due_at = now
        self._renewing = False
        self.state = LeaseState.ANNOUNCE
        self.granted_at: float | None = None
        """When the lease was granted or renewed last."""
        self.refusal: str | None = None
        """Why the server refuses the record, if it does."""

    @property
    def due_at(self) -> float:
        """When to send something."""
        return self._due_at

    def sent(self) -> None:
        """It was sent; a reply, or the loss of the connection, will follow."""
        self._renewing = self.state is LeaseState.RENEW
        self.state = LeaseState.WAITING

    def announce_again(self, now: float) -> None:
        """A new record, or a new connection: the server has to hear it at once."""
        self.state = LeaseState.ANNOUNCE
        self._due_at = now

    def granted(self, now: float, *, interval_s: float) -> None:
        """The server granted or renewed the lease."""
        self.state = LeaseState.RENEW
        self.granted_at = now
        self.refusal = None
        self._due_at = now + bounded_wait_s(interval_s)
        self._backoff.reset()

    def refused(self, now: float, *, code: str, text: str, retry_after_s: float) -> None:
        """The server refused."""
        if code == "retry_after":
            self.state = LeaseState.RENEW if self._renewing else LeaseState.ANNOUNCE
            self._due_at = now + bounded_wait_s(retry_after_s)
            return
        self.state = LeaseState.ANNOUNCE
        if code == "unknown" and self._renewing:
            # It forgot the lease, or we were away for too long: no fault of the record's.
            self._due_at = now
        else:
            self.refusal = f"{code}: {text}"
            self._due_at = now + bounded_wait_s(max(self._backoff.next_s(), retry_after_s))
