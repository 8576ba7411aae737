"""Counts a peer's use of the relay, beyond its connection.

A peer that reconnects must not get a fresh allowance by it, so accounts live in a book by CURVE
key. The book is bounded: it forgets the account that was idle longest.
"""

from relay.server.limits import RelayLimits
from transport.rate_limit import TokenBucket

MIN_BURST_BYTES = 256 * 1024
"""The least burst: even a slow rate lets a whole frame pass."""
STRAY_RATE_S = 500.0
STRAY_BURST = 5_000.0
"""Frames that go nowhere, such as control messages over the rate or data of a link that has ended.
A peer that sends more of them is sent away: reading them takes time, and while they wait, memory.
"""


class Account:
    """A peer's rates and quota.

    >>> account = Account(RelayLimits(peer_quota_bytes=1000), now=0.0)
    >>> account.use(900, now=1.0), account.use(200, now=2.0)
    (True, False)
    """

    __slots__ = (
        "_limits",
        "_period_ends",
        "_used_bytes",
        "_was_told",
        "bytes",
        "controls",
        "strays",
    )

    def __init__(self, limits: RelayLimits, now: float) -> None:
        self._limits = limits
        self._period_ends = now + limits.quota_period_s
        self._used_bytes = 0
        self._was_told = False
        self.bytes = byte_bucket(limits.peer_rate_bytes_s, limits, now)
        self.controls = TokenBucket(limits.control_rate_s, limits.control_burst, now)
        self.strays = TokenBucket(STRAY_RATE_S, STRAY_BURST, now)

    def use(self, size_bytes: int, now: float) -> bool:
        """Count what the peer sent; False when its quota for this period is used up."""
        if now >= self._period_ends:
            self._used_bytes = 0
            self._period_ends = now + self._limits.quota_period_s
        self._used_bytes += size_bytes
        return self._used_bytes <= self._limits.peer_quota_bytes

    def allow_control(self, now: float) -> bool:
        """Take one control message out of the peer's rate; False when it sends too many."""
        allowed = self.controls.take_one(now)
        if allowed:
            self._was_told = False
        return allowed

    def tell_once(self) -> bool:
        """Whether the peer has not been told yet that it sends too many; it is told once until it
        has slowed down."""
        first, self._was_told = not self._was_told, True
        return first

    def quota_wait_s(self, now: float) -> float:
        """How long until the peer may send again: 0 unless its quota is used up."""
        if self._used_bytes < self._limits.peer_quota_bytes:
            return 0.0
        return max(0.0, self._period_ends - now)


def byte_bucket(rate_bytes_s: float, limits: RelayLimits, now: float) -> TokenBucket:
    """The bucket for a byte rate, deep enough for a frame."""
    return TokenBucket(rate_bytes_s, max(rate_bytes_s * limits.burst_s, MIN_BURST_BYTES), now)


class AccountBook:
    """The accounts by CURVE key; at most ``capacity`` besides those in use."""

    def __init__(self, limits: RelayLimits, capacity: int = 16_384) -> None:
        self._limits = limits
        self._capacity = capacity
        self._in_use: dict[bytes, Account] = {}
        self._idle: dict[bytes, Account] = {}

    def open(self, curve_key: bytes, now: float) -> Account:
        """The account of a peer that is connected from now on."""
        account = (
            self._in_use.get(curve_key)
            or self._idle.pop(curve_key, None)
            or Account(self._limits, now)
        )
        self._in_use[curve_key] = account
        return account

    def close(self, curve_key: bytes) -> None:
        """The peer is gone; its account is kept while there is room."""
        self._idle[curve_key] = self._in_use.pop(curve_key)
        if len(self._idle) > self._capacity:
            del self._idle[next(iter(self._idle))]
