"""The bounds of what the registry grants and holds."""

from dataclasses import dataclass

from transport.rate_limit import Rate

_KEY_RATE = Rate(burst=100.0, per_s=10.0, patience=20)
_PREFIX_RATE = Rate(burst=5000.0, per_s=500.0, patience=1000)


@dataclass(frozen=True, slots=True)
class RegistryLimits:
    """Times in seconds; defaults for a small public host.

    >>> from random import Random
    >>> from protocol.codec import encode
    >>> from protocol.servers.rendezvous_messages import AskTime
    >>> from rendezvous.server.registry import Registry, Sender
    >>> limits = RegistryLimits(key_rate=Rate(burst=1.0, per_s=0.1, patience=1))
    >>> registry, alice = Registry(limits, Random(0)), Sender(b"her route", bytes(32), "192.0.2.1")
    >>> for _ in range(3):
    ...     answer = registry.receive(alice, encode(AskTime(0)), now=0.0, now_ms=0)
    >>> answer, registry.refused
    ([Disconnect(route=b'her route', reason='flood')], Counter({'retry_after': 1, 'flood': 1}))
    """

    lease_s: float = 150.0
    interval_s: float = 60.0
    interval_spread: float = 0.2
    fan_out: int = 50
    """A notice goes to so many peers of a swarm; in a larger one they are chosen by lot."""
    max_leases: int = 100_000
    max_leases_per_swarm: int = 20_000
    max_leases_per_prefix: int = 256
    """The most leases from one /24 or /48."""
    max_record_bytes: int = 128 << 20
    """All records together."""
    max_statements: int = 10_000
    max_statement_bytes: int = 64 << 20
    """All statements together."""
    max_statements_per_prefix: int = 64
    key_rate: Rate = _KEY_RATE
    """The rate for each CURVE key."""
    prefix_rate: Rate = _PREFIX_RATE
    """The rate for each /24 or /48."""
