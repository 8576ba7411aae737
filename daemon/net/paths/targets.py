"""Bounds the unasked packets of this peer, by target and by rate, so that no one can make it flood
a third party.

Others name the addresses at which paths to them may be found. A liar names somebody else's. So:

- Packets go to IP addresses at which the counterpart was seen, by a rendezvous that passed its
  signal on or by this machine, and to those in its own network where that is this peer's too.
- To one IP address, whoever names it, go at most :data:`SYNS_PER_S` connection requests a second,
  and one that never answers is punched to once in :data:`AGAIN_S` in the long run.
- An IPv6 address that nobody saw, of a machine whose rendezvous it reaches over IPv4 alone, may be
  tried, one of them, by a single connection request that is not repeated when it is refused.

>>> targets = Targets(Clock())
>>> for _ in range(3):
...     targets.begin(["203.0.113.5"])
>>> targets.wait_s(["203.0.113.5"]) > 0, targets.wait_s(["203.0.113.6"])
(True, 0.0)
>>> is_known_place("192.168.1.5", {"203.0.113.5"}, own_public="203.0.113.5")
True
>>> is_known_place("192.168.1.5", {"203.0.113.5"}, own_public="198.51.100.9")
False
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable

from transport.address import is_local, source_of
from transport.clock import Clock
from transport.rate_limit import Rate, RateLimiter, RetryAfter

SYNS_PER_S = 50.0
AGAIN_S = 30.0
TRIES = 3.0
"""So many failed attempts may follow each other sooner: the moment may have been missed."""
MAX_TARGETS = 4096
_NEVER = 1 << 62


class Targets:
    """Counts what is sent to each IP address, by all attempts together."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        rate = Rate(burst=SYNS_PER_S, per_s=SYNS_PER_S, patience=_NEVER)
        self._syns = RateLimiter(rate, capacity=MAX_TARGETS)
        self._tries: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """How many are left, and when that was so."""

    def wait_s(self, hosts: Iterable[str]) -> float:
        """The seconds until all these IP addresses may be tried; 0: now."""
        now = self._clock.monotonic()
        left = min((self._left(host, now) for host in hosts), default=TRIES)
        return max(0.0, (1.0 - left) * AGAIN_S)

    def begin(self, hosts: Iterable[str]) -> None:
        """Note that these IP addresses are tried now."""
        now = self._clock.monotonic()
        for host in hosts:
            left = self._left(host, now) - 1.0
            self._tries[source_of(host)] = left, now
            self._tries.move_to_end(source_of(host))
            if len(self._tries) > MAX_TARGETS:
                self._tries.popitem(last=False)

    def answered(self, host: str) -> None:
        """The peer was found there: attempts in vain before it count no more."""
        self._tries.pop(source_of(host), None)

    async def until_may_connect(self, host: str, syns: float) -> None:
        """Return when a connection to ``host`` may be begun that takes so many requests."""
        while True:
            verdict = self._syns.take(source_of(host), syns, self._clock.monotonic())
            if not isinstance(verdict, RetryAfter):
                return
            await asyncio.sleep(verdict.seconds)

    def _left(self, host: str, now: float) -> float:
        left, at = self._tries.get(source_of(host), (TRIES, now))
        return min(TRIES, left + (now - at) / AGAIN_S)


def is_known_place(host: str, seen: Collection[str], own_public: str) -> bool:
    """Whether the IP address ``host`` is one of the peer's, as far as others have seen.

    ``seen``: the IP addresses at which the peer was seen; ``own_public``: that at which others see
    this peer (empty: unknown), which the two have in common if they are at one site.
    """
    if host in seen:
        return True
    if is_local(host):
        return bool(own_public) and own_public in seen
    return ":" in host and source_of(host) in {source_of(one) for one in seen}
