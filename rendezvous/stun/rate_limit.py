"""How many packets a source may have answered, and all sources together."""

from transport.address import source_of
from transport.rate_limit import Allowed, Rate, RateLimiter


class SourceRateLimiter:
    """Says whether a packet from an address may be answered now. Sans-IO.

    Past ``max_sources`` the source that was quiet for longest is forgotten and starts anew. A flood
    from invented addresses could use that, so ``total_per_s`` bounds all of them together; it is
    asked last, so that one source over its own limit uses up nobody else's.
    """

    def __init__(
        self, *, source_per_s: float, source_burst: float, total_per_s: float, max_sources: int
    ) -> None:
        source = Rate(burst=source_burst, per_s=source_per_s, patience=0)
        total = Rate(burst=total_per_s, per_s=total_per_s, patience=0)
        self._sources = RateLimiter(source, capacity=max_sources)
        self._total = RateLimiter(total, capacity=1)

    def allow(self, host: str, now: float) -> bool:
        """Whether to answer ``host`` (an IP address), at ``now`` monotonic seconds."""
        return isinstance(self._sources.take(source_of(host), 1, now), Allowed) and isinstance(
            self._total.take("all", 1, now), Allowed
        )
