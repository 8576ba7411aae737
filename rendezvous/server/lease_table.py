"""The leases of those who are there, found by swarm and peer, by swarm and CURVE key, by route, and
by age.

Knows nothing of messages, quotas or signatures; :mod:`rendezvous.server.registry` decides with
them.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from rendezvous.server.directory import StoredRecord
from rendezvous.server.sample_list import SampleList


@dataclass(slots=True, eq=False)
class Lease:
    """A peer's place in one swarm, until it runs out or is renewed."""

    swarm: bytes
    peer: bytes
    """Public identity key."""
    curve_key: bytes
    record: bytes
    record_expires_ms: int
    prefix: str
    """The network that it was announced from (:mod:`rendezvous.server.address_quota`)."""
    route: bytes | None
    """How to reach the peer now; None while it is not connected."""
    expires_at: float
    """Monotonic seconds."""

    @classmethod
    def of(cls, stored: StoredRecord, *, route: bytes | None, expires_at: float) -> "Lease":
        """The lease that the peer of a stored record takes."""
        return cls(
            swarm=stored.swarm,
            peer=stored.peer,
            curve_key=stored.curve_key,
            record=stored.raw,
            record_expires_ms=stored.expires_ms,
            prefix=stored.prefix,
            route=route,
            expires_at=expires_at,
        )


@dataclass(slots=True)
class _SwarmLeases:
    by_peer: dict[bytes, Lease] = field(default_factory=dict)
    by_curve_key: dict[bytes, Lease] = field(default_factory=dict)
    all: SampleList[Lease] = field(default_factory=SampleList)
    connected: SampleList[Lease] = field(default_factory=SampleList)


class LeaseTable:
    """All leases. Each is in every index or in none."""

    def __init__(self) -> None:
        self._swarms: dict[bytes, _SwarmLeases] = {}
        self._by_age: OrderedDict[Lease, None] = OrderedDict()
        """The one that runs out next is first: all last equally long."""
        self._by_route: dict[bytes, set[Lease]] = {}
        self.total_bytes = 0
        """The bytes of all records."""

    def __len__(self) -> int:
        return len(self._by_age)

    def count(self, swarm: bytes) -> int:
        """How many leases ``swarm`` has."""
        leases = self._swarms.get(swarm)
        return 0 if leases is None else len(leases.all)

    def of_peer(self, swarm: bytes, peer: bytes) -> Lease | None:
        """The lease of the peer with this public identity key."""
        leases = self._swarms.get(swarm)
        return None if leases is None else leases.by_peer.get(peer)

    def of_curve_key(self, swarm: bytes, curve_key: bytes) -> Lease | None:
        """The lease of the peer with this CURVE key."""
        leases = self._swarms.get(swarm)
        return None if leases is None else leases.by_curve_key.get(curve_key)

    def add(self, lease: Lease) -> None:
        """Take ``lease`` in; neither its peer nor its CURVE key may have another in the swarm."""
        leases = self._swarms.setdefault(lease.swarm, _SwarmLeases())
        leases.by_peer[lease.peer] = lease
        leases.by_curve_key[lease.curve_key] = lease
        leases.all.add(lease)
        self._by_age[lease] = None
        self.total_bytes += len(lease.record)
        self._connect(lease, lease.route)

    def remove(self, lease: Lease) -> None:
        """Forget ``lease``."""
        self._connect(lease, None)
        leases = self._swarms[lease.swarm]
        del leases.by_peer[lease.peer]
        del leases.by_curve_key[lease.curve_key]
        leases.all.discard(lease)
        del self._by_age[lease]
        self.total_bytes -= len(lease.record)
        if not leases.by_peer:
            del self._swarms[lease.swarm]

    def renew(self, lease: Lease, *, expires_at: float, route: bytes | None) -> None:
        """``lease`` lasts longer, and its peer is reached by ``route`` from now on (None: as it
        was)."""
        lease.expires_at = expires_at
        self._by_age.move_to_end(lease)
        if route is not None and lease.route != route:
            self._connect(lease, route)

    def disconnect(self, route: bytes) -> None:
        """Nobody is reached by ``route`` any more. The leases stand."""
        for lease in tuple(self._by_route.get(route, ())):
            self._connect(lease, None)

    def of_swarm(self, swarm: bytes) -> Iterable[Lease]:
        """All leases of ``swarm``."""
        leases = self._swarms.get(swarm)
        return () if leases is None else leases.by_peer.values()

    def sample(self, swarm: bytes, most: int, random: Random) -> Iterable[Lease]:
        """Any leases of ``swarm``."""
        leases = self._swarms.get(swarm)
        return () if leases is None else leases.all.sample(most, random)

    def sample_connected(self, swarm: bytes, most: int, random: Random) -> Iterable[Lease]:
        """Any leases of ``swarm`` whose peer is connected."""
        leases = self._swarms.get(swarm)
        return () if leases is None else leases.connected.sample(most, random)

    def oldest(self) -> Lease | None:
        """The lease that runs out next."""
        return next(iter(self._by_age), None)

    def _connect(self, lease: Lease, route: bytes | None) -> None:
        if lease.route is not None and lease.route in self._by_route:
            others = self._by_route[lease.route]
            others.discard(lease)
            if not others:
                del self._by_route[lease.route]
        lease.route = route
        connected = self._swarms[lease.swarm].connected
        if route is None:
            connected.discard(lease)
        else:
            connected.add(lease)
            self._by_route.setdefault(route, set()).add(lease)
