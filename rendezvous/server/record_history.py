"""The newest record that was accepted of each peer, so that an older one is refused as stale."""

from collections import OrderedDict
from hashlib import sha256

from rendezvous.server.refusal import RefusalError


class RecordHistory:
    """Remembers sequence number and digest by swarm and peer, at most ``capacity`` of them.

    Unlike :class:`protocol.statements.sequence.ReplayGuard` it lets the newest record pass again: a
    peer takes its lease anew with it after a lost connection. Nobody else can, since the connection
    must have the CURVE key in the record.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._newest: OrderedDict[tuple[bytes, bytes], tuple[int, bytes]] = OrderedDict()

    def accept(self, swarm: bytes, peer: bytes, sequence: int, raw: bytes) -> None:
        """Remember the record. Raises :class:`RefusalError` when it is not the newest."""
        key = (swarm, peer)
        digest = sha256(raw).digest()
        newest, newest_digest = self._newest.get(key, (sequence - 1, b""))
        if sequence < newest or (sequence == newest and digest != newest_digest):
            raise RefusalError("stale", f"sequence above {newest} expected, got {sequence}")
        self._newest[key] = (sequence, digest)
        self._newest.move_to_end(key)
        if len(self._newest) > self._capacity:
            self._newest.popitem(last=False)
