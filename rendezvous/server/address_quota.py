"""Bounds what one network may have: the owner of a /24 (IPv4) or /48 (IPv6) is many at no cost."""

from collections import Counter
from functools import lru_cache

from transport.address import is_loopback, network_of

EXEMPT = ""
"""The prefix of loopback: clients on this machine are not limited by address."""


# Asked for each message.
@lru_cache(maxsize=16384)
def prefix_of(ip: str) -> str:
    """The network that ``ip``, without a zone, is counted in, or :data:`EXEMPT`."""
    return EXEMPT if is_loopback(ip) else network_of(ip)


class AddressQuota:
    """Counts by prefix, each up to ``most``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count: Counter[str] = Counter()

    def has_room(self, prefix: str) -> bool:
        """Whether one more of ``prefix`` fits."""
        return prefix == EXEMPT or self._count[prefix] < self._most

    def add(self, prefix: str) -> None:
        """One more."""
        if prefix != EXEMPT:
            self._count[prefix] += 1

    def remove(self, prefix: str) -> None:
        """One less."""
        if prefix != EXEMPT:
            self._count[prefix] -= 1
            if self._count[prefix] <= 0:
                del self._count[prefix]
