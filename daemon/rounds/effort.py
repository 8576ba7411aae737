"""How much of the daemon's processor time each peer's messages may take: checking a signature costs
more than sending one. Messages beyond that are passed over.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from protocol.identity import PeerId
from transport.clock import Clock
from transport.rate_limit import TokenBucket

SHARE = 0.25
"""Of one core, in the long run. In a swarm of hundreds an honest peer takes some thousandths."""
AT_ONCE_S = 10.0


class Effort:
    """What is left to each peer.

    >>> effort, ann = Effort(Clock()), PeerId("ann")
    >>> effort.has_left(ann)
    True
    >>> with effort.spent_on(ann):
    ...     pass  # Act on a message of hers.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left: dict[PeerId, TokenBucket] = {}

    def has_left(self, peer: PeerId) -> bool:
        """Whether a message of ``peer`` may be acted on now."""
        now = self._clock.monotonic()
        if peer not in self._left:
            self._left[peer] = TokenBucket(SHARE, AT_ONCE_S, now)
        return self._left[peer].available(now) > 0

    @contextmanager
    def spent_on(self, peer: PeerId) -> Iterator[None]:
        """What the block takes counts as ``peer``'s, whatever comes of it."""
        left = self._left[peer]  # It may be forgotten meanwhile.
        began = self._clock.processor_s()
        try:
            yield
        finally:
            left.take(self._clock.processor_s() - began)

    def forget_old(self) -> None:
        """Forget those who have all of theirs left."""
        now = self._clock.monotonic()
        for peer in [one for one, left in self._left.items() if left.available(now) >= AT_ONCE_S]:
            del self._left[peer]
