"""Sequence numbers of signed statements: counting one's own, refusing others' old ones.

>>> from protocol.envelope import Domain, open_envelope, seal_envelope
>>> from protocol.identity import Identity
>>> counter = SequenceCounter(now_ms=1_000)
>>> counter.take(), counter.take()
(1000, 1001)
>>> raw = seal_envelope(
...     Identity(bytes(32)), Domain.SIGNAL, b"", swarm=b"", sequence=counter.take())
>>> guard, message = ReplayGuard(), open_envelope(raw, Domain.SIGNAL, now_ms=0, swarm=b"")
>>> guard.check(message)
>>> guard.check(message)
Traceback (most recent call last):
protocol.statements.sequence.StaleError: stale: sequence above 1002 expected, got 1002 from hnv...
"""

from typing import Protocol

from protocol.envelope import VerifiedMessage
from protocol.errors import RemoteProtocolError


class StaleError(RemoteProtocolError):
    """The statement is older than one that was already seen, or the same again."""


RESERVED = 1000
"""The numbers that are set aside at a time, so that the memory is not written for each."""


class SequenceMemory(Protocol):
    """Remembers beyond this process which numbers may have been given out."""

    def load(self) -> int:
        """All numbers that were given out are below this one; 0: none was, or nobody knows."""

    def store(self, bound: int) -> None:
        """All numbers that are given out from now on are below ``bound``. Never raises."""


class NoSequenceMemory:
    """For counters that end with this process."""

    def load(self) -> int:
        """See :class:`SequenceMemory`."""
        return 0

    def store(self, bound: int) -> None:
        """See :class:`SequenceMemory`."""


class SequenceCounter:
    """Numbers for one signer's statements in one swarm.

    They start at the Unix milliseconds, so that a peer that lost its state still counts up, but
    never below what was given out before: the clock may have been set back since.
    """

    def __init__(self, *, now_ms: int, memory: SequenceMemory | None = None) -> None:
        self._memory = memory or NoSequenceMemory()
        self._next = max(self._memory.load(), now_ms)
        self._bound = self._next

    def take(self) -> int:
        """The next number; each is given out once."""
        number = self._next
        self._next += 1
        if number >= self._bound:
            # Before anybody sees the number: this process may end at any moment after that.
            self._bound = number + RESERVED
            self._memory.store(self._bound)
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
