"""A record that a peer announces: what it has to be, and whether there is room for it."""

from protocol.envelope import NEVER_MS, Domain, open_envelope
from protocol.identity import public_key_of
from protocol.statements.peer_record import MAX_RECORD_BYTES, record_of
from rendezvous.server.address_quota import AddressQuota
from rendezvous.server.directory import StoredRecord
from rendezvous.server.effects import Sender
from rendezvous.server.lease_table import Lease, LeaseTable
from rendezvous.server.limits import RegistryLimits
from rendezvous.server.refusal import RefusalError

_SWARM_ID_BYTES = 32


def open_announced(raw: bytes, sender: Sender, *, prefix: str, now_ms: int) -> StoredRecord:
    """The record in ``raw``, if its signature holds and it has the key of ``sender``'s connection.

    Raises :class:`RemoteProtocolError`.
    """
    message = open_envelope(
        raw, Domain.PEER_RECORD, now_ms=now_ms, swarm=None, max_bytes=MAX_RECORD_BYTES
    )
    if record_of(message).record.curve_key != sender.curve_key:
        raise RefusalError("denied", "the record's CURVE key is not this connection's")
    if len(message.swarm) != _SWARM_ID_BYTES:
        raise RefusalError("malformed", f"swarm id of {len(message.swarm)} bytes")
    return StoredRecord(
        swarm=message.swarm,
        peer=public_key_of(message.signer),
        curve_key=sender.curve_key,
        sequence=message.sequence,
        expires_ms=message.expires_ms if message.expires_ms != NEVER_MS else 2**63 - 1,
        prefix=prefix,
        raw=message.raw,
    )


def check_room(
    stored: StoredRecord,
    held: Lease | None,
    leases: LeaseTable,
    quota: AddressQuota,
    limits: RegistryLimits,
) -> None:
    """Return if ``stored`` may take the place of ``held``. Raises :class:`RefusalError`."""
    moved = held is None or held.prefix != stored.prefix
    if moved and not quota.has_room(stored.prefix):
        raise RefusalError("quota", f"too many peers from {stored.prefix}")
    more = 1 if held is None else 0
    more_bytes = len(stored.raw) - (0 if held is None else len(held.record))
    if (
        len(leases) + more > limits.max_leases
        or leases.total_bytes + more_bytes > limits.max_record_bytes
    ):
        raise RefusalError("quota", f"no room: {len(leases)} peers are here")
    in_swarm = leases.count(stored.swarm)
    if in_swarm + more > limits.max_leases_per_swarm:
        raise RefusalError("quota", f"no room: {in_swarm} peers are in the swarm")
