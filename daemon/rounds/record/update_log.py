"""When each peer's update was received, for the status."""

from collections import Counter

from protocol.identity import PeerId
from transport.clock import Clock


class UpdateLog:
    """Counts the valid updates of other peers.

    >>> log, ann = UpdateLog(Clock()), PeerId("ann")
    >>> log.add(ann)
    >>> log.count(ann), log.total(), log.seconds_since(PeerId("bob"))
    (1, 1, None)
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: Counter[PeerId] = Counter()
        self._last: dict[PeerId, float] = {}

    def add(self, peer: PeerId) -> None:
        """A valid update of ``peer``'s is here."""
        self._counts[peer] += 1
        self._last[peer] = self._clock.monotonic()

    def count(self, peer: PeerId) -> int:
        """How many came from ``peer``."""
        return self._counts[peer]

    def total(self) -> int:
        """How many came in all."""
        return self._counts.total()

    def seconds_since(self, peer: PeerId) -> float | None:
        """How long ago the last one of ``peer`` came; None before the first."""
        last = self._last.get(peer)
        return None if last is None else self._clock.monotonic() - last
