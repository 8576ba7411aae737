"""How often someone may ask: a token bucket for each, and an end to patience."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` tokens at once, refilled at ``per_s`` a second."""

    burst: float
    per_s: float
    patience: int
    """So many refusals in a row are answered; whoever goes on is flooding."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Go on."""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Too fast; it would be allowed in so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Flooding:
    """Too fast, and told so often enough."""


Verdict = Allowed | RetryAfter | Flooding


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float
    refusals: int = 0


class RateLimiter:
    """Buckets by key; at most ``capacity``, the one that was used least recently is forgotten."""

    def __init__(self, rate: Rate, *, capacity: int = 100_000) -> None:
        self._rate = rate
        self._capacity = capacity
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def take(self, key: Hashable, cost: float, now: float) -> Verdict:
        """Pay ``cost`` tokens of ``key``'s, or hear why not. ``now``: monotonic seconds."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(self._rate.burst, now)
            if len(self._buckets) > self._capacity:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        refill = (now - bucket.filled_at) * self._rate.per_s
        bucket.tokens = min(self._rate.burst, bucket.tokens + refill)
        bucket.filled_at = now
        if bucket.tokens >= cost:
            bucket.tokens -= cost
            bucket.refusals = 0
            return Allowed()
        bucket.refusals += 1
        if bucket.refusals > self._rate.patience:
            return Flooding()
        return RetryAfter((cost - bucket.tokens) / self._rate.per_s)
