"""Sequence numbers of signed statements: counting one's own, refusing others' old ones."""

from protocol.envelope import VerifiedMessage
from protocol.errors import RemoteProtocolError


class StaleError(RemoteProtocolError):
    """The statement is older than one that was already seen, or the same again."""


class SequenceCounter:
    """Numbers for one signer's own statements of one kind in one swarm.

    They start at max(stored + 1, Unix milliseconds): a peer that lost its state still counts up.
    """

    def __init__(self, *, now_ms: int, stored: int = 0) -> None:
        self._next = max(stored + 1, now_ms)

    def take(self) -> int:
        """The next number; each is given out once."""
        number = self._next
        self._next += 1
        return number


class ReplayGuard:
    """Remembers the highest sequence number per (signer, swarm, domain).

    Holds at most ``capacity`` of them and forgets the one that was used least recently: what it
    forgets can be replayed until it is seen again, and expiry ends that too.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._highest: dict[tuple[str, bytes, str], int] = {}

    def check(self, message: VerifiedMessage) -> None:
        """Accept ``message`` if it is newer than all before it. Raises :class:`StaleError`."""
        key = (message.signer, message.swarm, message.domain.value)
        highest = self._highest.pop(key, None)
        if highest is not None and message.sequence <= highest:
            self._highest[key] = highest
            raise StaleError(
                f"stale: sequence above {highest} expected, got {message.sequence}"
                f" from {message.signer}"
            )
        self._highest[key] = message.sequence
        if len(self._highest) > self._capacity:
            del self._highest[next(iter(self._highest))]
