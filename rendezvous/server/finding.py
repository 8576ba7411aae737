"""What those who look for peers are told: records, as their peers signed them.

Knows leases; who may ask, and how often, decides :mod:`rendezvous.server.registry`.

>>> find(LeaseTable(), Find(1, bytes(32), bytes(32), b""), now_ms=0)
Traceback (most recent call last):
rendezvous.server.refusal.RefusalError: no such peer in the swarm now
"""

from random import Random

from protocol.identity import KEY_BYTES
from protocol.servers.rendezvous_messages import (
    MAX_FRAME_BYTES,
    MAX_LOOKUP,
    Find,
    Lookup,
    Records,
)
from rendezvous.server.lease_table import LeaseTable
from rendezvous.server.refusal import RefusalError

_REPLY_OVERHEAD_BYTES = 1024


def look_up(
    leases: LeaseTable, request: Lookup, *, asker: bytes, now_ms: int, random: Random
) -> Records:
    """Records of others than the peer with the CURVE key ``asker``, chosen by lot: as many as it
    wants, as long as one frame holds them. ``now_ms``: Unix milliseconds."""
    want = max(0, min(request.want, MAX_LOOKUP))
    records: list[bytes] = []
    room_bytes = MAX_FRAME_BYTES - _REPLY_OVERHEAD_BYTES
    for lease in leases.sample(request.swarm, want + 1, random):
        if lease.curve_key == asker or lease.record_expires_ms <= now_ms:
            continue
        room_bytes -= len(lease.record) + 8
        if len(records) == want or room_bytes < 0:
            break
        records.append(lease.record)
    total = leases.count(request.swarm)
    return Records(request=request.request, records=tuple(records), total=total)


def find(leases: LeaseTable, request: Find, *, now_ms: int) -> Records:
    """The record of one peer. Raises :class:`RefusalError` when it is not there."""
    if sorted((len(request.peer), len(request.curve_key))) != [0, KEY_BYTES]:
        raise RefusalError("malformed", "find takes one key of 32 bytes, of either kind")
    if request.peer:
        lease = leases.of_peer(request.swarm, request.peer)
    else:
        lease = leases.of_curve_key(request.swarm, request.curve_key)
    if lease is None or lease.record_expires_ms <= now_ms:
        raise RefusalError("unknown", "no such peer in the swarm now")
    total = leases.count(request.swarm)
    return Records(request=request.request, records=(lease.record,), total=total)
