"""How often someone may ask: a token bucket for each, and an end to patience."""

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass


class TokenBucket:
    """Fills by ``rate`` tokens a second up to ``burst``; starts full. An infinite rate is free."""

    __slots__ = ("_burst", "_level", "_rate", "_updated")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = math.inf if math.isinf(rate) else burst
        self._level = self._burst
        self._updated = now

    def available(self, now: float) -> float:
        """How many tokens there are now."""
        if now > self._updated:
            if not math.isinf(self._level):
                self._level = min(self._burst, self._level + (now - self._updated) * self._rate)
            self._updated = now
        return self._level

    def take(self, tokens: float) -> None:
        """Take ``tokens`` of the ones that were available."""
        self._level -= tokens

    def take_one(self, now: float) -> bool:
        """Take a token if there is one."""
        if self.available(now) < 1:
            return False
        self.take(1)
        return True


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` tokens at once, refilled at ``per_s`` a second."""

    burst: float
    per_s: float
    patience: int
    """So many refusals in a row are answered; a sender that goes on is flooding."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Go on."""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """The sender is too fast; it is allowed again in so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Flooding:
    """The sender is too fast, and was told so often enough."""


Verdict = Allowed | RetryAfter | Flooding

_ALLOWED = Allowed()


@dataclass(slots=True)
class _Account:
    bucket: TokenBucket
    refusals: int = 0


class RateLimiter:
    """Buckets by key; at most ``capacity``, the one that was used least recently is forgotten.

    >>> limiter = RateLimiter(Rate(burst=1.0, per_s=0.5, patience=1))
    >>> [limiter.take("ada", 1.0, now=0.0) for _ in range(3)]
    [Allowed(), RetryAfter(seconds=2.0), Flooding()]
    """

    def __init__(self, rate: Rate, *, capacity: int = 100_000) -> None:
        self._rate = rate
        self._capacity = capacity
        self._accounts: OrderedDict[Hashable, _Account] = OrderedDict()

    def take(self, key: Hashable, cost: float, now: float) -> Verdict:
        """Pay ``cost`` tokens of ``key``'s, or hear why not. ``now``: monotonic seconds."""
        account = self._accounts.get(key)
        if account is None:
            bucket = TokenBucket(self._rate.per_s, self._rate.burst, now)
            account = self._accounts[key] = _Account(bucket)
            if len(self._accounts) > self._capacity:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(key)
        bucket = account.bucket
        available = bucket.available(now)
        if available >= cost:
            bucket.take(cost)
            account.refusals = 0
            return _ALLOWED
        account.refusals += 1
        if account.refusals > self._rate.patience:
            return Flooding()
        return RetryAfter((cost - available) / self._rate.per_s)
