"""Pings over a session: what this peer asks, and what it answers others. Sans-IO.

Nobody can make this peer flood: a reply is as long as what it answers, and each peer gets
:data:`REPLIES_PER_S` of them at most; further ones get no answer.
"""

from protocol.errors import TransportError
from protocol.identity import PeerId
from protocol.peers.measure_messages import Echo, EchoReply
from transport.rate_limit import TokenBucket

REPLIES_PER_S = 20.0
REPLY_BURST = 40.0
MAX_BUCKETS = 256
MAX_WAITING = 64


class Echoes:
    """All pings of one peer. ``now`` is monotonic seconds."""

    def __init__(self) -> None:
        self._last_number = 0
        self._sent: dict[tuple[PeerId, int], tuple[Echo, float]] = {}
        self._buckets: dict[PeerId, TokenBucket] = {}
        self.unanswered = 0
        """How many pings of others came too fast."""

    def ask(self, peer: PeerId, padding: bytes, now: float) -> Echo:
        """What to send to ``peer``, now. Raises :class:`TransportError`."""
        if len(self._sent) >= MAX_WAITING:
            raise TransportError(f"{MAX_WAITING} pings wait for their replies already")
        self._last_number = (self._last_number + 1) % 2**32
        echo = Echo(number=self._last_number, padding=padding)
        self._sent[peer, echo.number] = echo, now
        return echo

    def take_reply(self, peer: PeerId, reply: EchoReply, now: float) -> float | None:
        """The round trip in seconds; None for what answers nothing that was asked."""
        echo, sent_at = self._sent.get((peer, reply.number), (None, 0.0))
        if echo is None or reply.padding != echo.padding:
            return None
        del self._sent[peer, reply.number]
        return now - sent_at

    def forget(self, peer: PeerId, echo: Echo) -> None:
        """Nobody waits for the reply any more."""
        self._sent.pop((peer, echo.number), None)

    def answer(self, peer: PeerId, echo: Echo, now: float) -> EchoReply | None:
        """The reply to a ping of ``peer``'s; None if it asks too often."""
        bucket = self._buckets.get(peer)
        if bucket is None:
            if len(self._buckets) >= MAX_BUCKETS:
                del self._buckets[next(iter(self._buckets))]
            bucket = self._buckets[peer] = TokenBucket(REPLIES_PER_S, REPLY_BURST, now)
        if bucket.available(now) < 1.0:
            self.unanswered += 1
            return None
        bucket.take(1.0)
        return EchoReply(number=echo.number, padding=echo.padding)
