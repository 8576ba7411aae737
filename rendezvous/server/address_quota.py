"""How much one network may have: whoever owns a /24 (IPv4) or /48 (IPv6) is many at no cost."""

import ipaddress
from collections import Counter
from functools import lru_cache

EXEMPT = ""
"""The prefix of loopback: whoever is on this machine is not limited by address."""


@lru_cache(maxsize=16384)
def prefix_of(ip: str) -> str:
    """The network that ``ip`` is counted in, or :data:`EXEMPT`."""
    address = ipaddress.ip_address(ip)
    if address.is_loopback:
        return EXEMPT
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))


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
