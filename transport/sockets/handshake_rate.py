"""Bounds the CURVE handshakes of a network: the owner of one has addresses without end.

libzmq's ROUTER names connections by counting up from a random number, and ends the process when a
connection chose, as its own name, the one that comes next. A client that makes connections at
thousands a second can meet that number by chance; at these rates it takes days from one network.
"""

from transport.address import is_loopback, network_of, source_of
from transport.rate_limit import Allowed, Rate, RateLimiter

SOURCE_RATE = Rate(burst=64.0, per_s=2.0, patience=0)
"""The rate for an IPv4 address or an IPv6 /64."""
NETWORK_RATE = Rate(burst=512.0, per_s=5.0, patience=0)
"""The rate for an IPv4 /24 or an IPv6 /48. Many peers may stand behind one carrier's addresses, and
all come back at once after a server's restart."""
MAX_NETWORKS = 16_384


class HandshakeRates:
    """Says whether another handshake may come to its end. Loopback is exempt.

    >>> rates = HandshakeRates()
    >>> sum(rates.allow("192.0.2.1", now=0.0) for _ in range(100))
    64
    """

    def __init__(self) -> None:
        self._sources = RateLimiter(SOURCE_RATE, capacity=MAX_NETWORKS)
        self._networks = RateLimiter(NETWORK_RATE, capacity=MAX_NETWORKS)

    def allow(self, ip: str, now: float) -> bool:
        """One more from ``ip``. ``now``: monotonic seconds."""
        if is_loopback(ip):
            return True
        # The source first: one that is over its own rate uses up nothing of its neighbours'.
        return isinstance(self._sources.take(source_of(ip), 1.0, now), Allowed) and isinstance(
            self._networks.take(network_of(ip), 1.0, now), Allowed
        )
