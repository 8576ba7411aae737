"""How many bytes went to and came from other peers.

>>> counter = TrafficCounter()
>>> meter = TrafficMeter(counter)
>>> counter.sent += 1024
>>> meter.take(), meter.take()
(Traffic(sent=1024, received=0), Traffic(sent=0, received=0))
"""

from typing import NamedTuple

from protocol.identity import PeerId


class Traffic(NamedTuple):
    """Bytes of frames, over all paths."""

    sent: int = 0
    received: int = 0


class TrafficCounter:
    """Everything since the start, to and from all peers, whether they are still there or not."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.busy: set[PeerId] = set()
        """Those to whom more waits to be sent than the path takes."""
        self.arrived = 0
        """Of the bulk that was sent, each byte counted once: what others are known to have."""

    @property
    def total(self) -> Traffic:
        """The traffic so far."""
        return Traffic(self.sent, self.received)


class TrafficMeter:
    """The traffic between one look and the next; the first count starts when this is made."""

    def __init__(self, counter: TrafficCounter) -> None:
        self._counter = counter
        self._before = counter.total

    def take(self) -> Traffic:
        """The traffic since the last call."""
        before, self._before = self._before, self._counter.total
        return Traffic(self._before.sent - before.sent, self._before.received - before.received)
