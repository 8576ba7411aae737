"""What other rendezvous of the same store did, taken in as if it had been done here.

Whoever can write the store is trusted as far as this server itself is: it can lie about who is
there, never about who they are, since peers verify each other's records.
"""

import contextlib
from dataclasses import dataclass

from protocol.codec import encode
from protocol.errors import RemoteProtocolError
from protocol.identity import KEY_BYTES
from protocol.servers.rendezvous_messages import Joined, Left
from rendezvous.server.address_quota import EXEMPT, AddressQuota
from rendezvous.server.directory import (
    Change,
    RecordRemoved,
    RecordsRenewed,
    RecordStored,
    StatementRemoved,
    StatementStored,
    StoredRecord,
)
from rendezvous.server.lease_table import Lease, LeaseTable
from rendezvous.server.limits import RegistryLimits
from rendezvous.server.record_history import RecordHistory
from rendezvous.server.refusal import RefusalError
from rendezvous.server.statement_book import StatementBook

LEFT = "left"


@dataclass(frozen=True, slots=True)
class News:
    """A notice to the peers of a swarm."""

    swarm: bytes
    frame: bytes
    about: Lease | None = None
    """The peer that need not be told."""


class ForeignChanges:
    """Changes the parts of a registry that it is given."""

    def __init__(
        self,
        limits: RegistryLimits,
        leases: LeaseTable,
        history: RecordHistory,
        quota: AddressQuota,
        statements: StatementBook,
    ) -> None:
        self._limits = limits
        self._leases = leases
        self._history = history
        self._quota = quota
        self._statements = statements

    def take(self, change: Change, *, now: float, now_ms: int) -> News | None:
        """Take ``change`` in. ``now`` is monotonic seconds, ``now_ms`` Unix milliseconds."""
        match change:
            case RecordStored(record):
                return self._store(record, now, now_ms)
            case RecordsRenewed(names):
                for name in names:
                    lease = self._leases.of_peer(name[:KEY_BYTES], name[KEY_BYTES:])
                    if lease is not None:
                        self._leases.renew(lease, expires_at=now + self._limits.lease_s, route=None)
            case RecordRemoved(swarm, peer, reason):
                lease = self._leases.of_peer(swarm, peer)
                # One that is connected here has not expired, whatever it looks like from there.
                if lease is not None and (lease.route is None or reason == LEFT):
                    self._forget(lease)
                    return News(swarm, encode(Left(swarm=swarm, peer=peer)))
            case StatementStored(_, raw):
                self._publish(raw, now_ms)
            case StatementRemoved():
                pass  # For want of room there; here there may be some.
        return None

    def _store(self, record: StoredRecord, now: float, now_ms: int) -> News | None:
        held = self._leases.of_peer(record.swarm, record.peer)
        if held is not None and held.record == record.raw:
            return None
        if held is None and len(self._leases) >= self._limits.max_leases:
            return None
        try:
            self._history.accept(record.swarm, record.peer, record.sequence, record.raw)
        except RefusalError:
            return None  # A newer one is here.
        if record.expires_ms <= now_ms:
            return None
        route = None
        if held is not None:
            route = held.route if held.curve_key == record.curve_key else None
            self._forget(held)
        other = self._leases.of_curve_key(record.swarm, record.curve_key)
        if other is not None:
            self._forget(other)
        lease = Lease.of(record, route=route, expires_at=now + self._limits.lease_s)
        self._quota.add(lease.prefix)
        self._leases.add(lease)
        return News(record.swarm, encode(Joined(record=record.raw)), about=lease)

    def _forget(self, lease: Lease) -> None:
        self._leases.remove(lease)
        self._quota.remove(lease.prefix)

    def _publish(self, raw: bytes, now_ms: int) -> None:
        # A newer one may be here, or there is no room.
        with contextlib.suppress(RemoteProtocolError):
            self._statements.publish(
                raw,
                prefix=EXEMPT,
                now_ms=now_ms,
                in_use=lambda swarm: self._leases.count(swarm) > 0,
            )
