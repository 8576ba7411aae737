"""What a rendezvous tells those who ask who is in a swarm.

Every answer fits in a frame, however many peers there are and however long their records.
"""

from heapq import nsmallest
from random import Random

from protocol.codec import encode
from protocol.identity import KEY_BYTES
from protocol.servers.rendezvous_messages import (
    MAX_FRAME_BYTES,
    MAX_LOOKUP,
    MAX_MEMBERS,
    Find,
    ListMembers,
    Lookup,
    MemberList,
    Records,
)
from rendezvous.server.effects import Send, Sender
from rendezvous.server.lease_table import LeaseTable
from rendezvous.server.refusal import RefusalError

_REPLY_OVERHEAD_BYTES = 1024


class LookUps:
    """Answers from the leases. ``now_ms``: Unix milliseconds.

    Example (rendezvous/server/registry.py)::

        return [self._look_ups.members(sender, request, now_ms)]
    """

    def __init__(self, leases: LeaseTable, random: Random) -> None:
        self._leases = leases
        self._random = random

    def sample(self, sender: Sender, request: Lookup, now_ms: int) -> Send:
        """Some records of a swarm."""
        want = max(0, min(request.want, MAX_LOOKUP))
        records: list[bytes] = []
        room_bytes = MAX_FRAME_BYTES - _REPLY_OVERHEAD_BYTES
        for lease in self._leases.sample(request.swarm, want + 1, self._random):
            if lease.curve_key == sender.curve_key or lease.record_expires_ms <= now_ms:
                continue
            room_bytes -= len(lease.record) + 8
            if len(records) == want or room_bytes < 0:
                break
            records.append(lease.record)
        total = self._leases.count(request.swarm)
        reply = Records(request=request.request, records=tuple(records), total=total)
        return Send(sender.route, encode(reply))

    def one(self, sender: Sender, request: Find, now_ms: int) -> Send:
        """One record. Raises :class:`RefusalError`."""
        if sorted((len(request.peer), len(request.curve_key))) != [0, KEY_BYTES]:
            raise RefusalError("malformed", "find takes one key of 32 bytes, of either kind")
        if request.peer:
            lease = self._leases.of_peer(request.swarm, request.peer)
        else:
            lease = self._leases.of_curve_key(request.swarm, request.curve_key)
        if lease is None or lease.record_expires_ms <= now_ms:
            raise RefusalError("unknown", "no such peer in the swarm now")
        total = self._leases.count(request.swarm)
        reply = Records(request=request.request, records=(lease.record,), total=total)
        return Send(sender.route, encode(reply))

    def members(self, sender: Sender, request: ListMembers, now_ms: int) -> Send:
        """The ids of a swarm's peers; of very many the lowest, so that all are told the same."""
        keys = [
            lease.peer
            for lease in self._leases.of_swarm(request.swarm)
            if lease.record_expires_ms > now_ms
        ]
        if len(keys) > MAX_MEMBERS:
            keys = nsmallest(MAX_MEMBERS, keys)
        reply = MemberList(request=request.request, peers=b"".join(keys))
        return Send(sender.route, encode(reply))
