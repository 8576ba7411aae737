"""How many bytes went to and came from other peers, between one look and the next."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from daemon.link_status import LinkStatus
from protocol.identity import PeerId


class Traffic(NamedTuple):
    """Bytes of frames, over all paths."""

    sent: int
    received: int


class TrafficMeter:
    """Counts from its making on. What a peer moved that was gone at the next look is missing."""

    def __init__(self, links: Callable[[], Iterable[LinkStatus]]) -> None:
        self._links = links
        self._before = self._totals()

    def take(self) -> Traffic:
        """What came on top since the last call."""
        before, self._before = self._before, self._totals()
        sent = received = 0
        for peer, now in self._before.items():
            then = before.get(peer, Traffic(0, 0))
            if then.sent > now.sent or then.received > now.received:
                then = Traffic(0, 0)  # it was forgotten in between, and counted anew
            sent += now.sent - then.sent
            received += now.received - then.received
        return Traffic(sent, received)

    def _totals(self) -> dict[PeerId, Traffic]:
        return {
            link.peer_id: Traffic(link.bytes_sent, link.bytes_received) for link in self._links()
        }
