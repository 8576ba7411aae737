"""How many packets a source may have answered, in a table that a flood of sources cannot grow."""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

IPV6_SITE_BITS = 64
"""One customer has a whole /64 and can send from each of its addresses."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A token bucket: ``burst`` at once, ``per_s`` in the long run."""

    per_s: float
    burst: float


class _Bucket:
    __slots__ = ("_limit", "_tokens", "_updated")

    def __init__(self, limit: RateLimit, now: float) -> None:
        self._limit = limit
        self._tokens = limit.burst
        self._updated = now

    def take(self, now: float) -> bool:
        grown = self._tokens + (now - self._updated) * self._limit.per_s
        self._tokens = min(self._limit.burst, grown)
        self._updated = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class SourceRateLimiter:
    """Says whether a packet from an address may be answered now. Sans-IO.

    Past ``max_sources`` the source that was quiet for longest is forgotten and starts anew. A flood
    from invented addresses could use that, so ``total`` bounds all of them together; it is asked
    last, so that one source over its own limit uses up nobody else's.
    """

    def __init__(self, *, source: RateLimit, total: RateLimit, max_sources: int) -> None:
        self._source = source
        self._total = total
        self._max_sources = max_sources
        self._total_bucket: _Bucket | None = None
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def allow(self, host: str, now: float) -> bool:
        """Whether to answer ``host`` (an IP address), at ``now`` monotonic seconds."""
        key = source_key(host)
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._max_sources:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = _Bucket(self._source, now)
        else:
            self._buckets.move_to_end(key)
        if self._total_bucket is None:
            self._total_bucket = _Bucket(self._total, now)
        return bucket.take(now) and self._total_bucket.take(now)

    def __len__(self) -> int:
        """How many sources are remembered."""
        return len(self._buckets)


def source_key(host: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 around an IPv6 address."""
    if ":" not in host:
        return host
    packed = ipaddress.IPv6Address(host.partition("%")[0]).packed
    return packed[: IPV6_SITE_BITS // 8].hex()
