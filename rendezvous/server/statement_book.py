"""The swarm statements that a rendezvous keeps for those who come with an invite.

Invariants: what is kept was signed by the swarm's founder; a statement is replaced only by a higher
version that leaves the training as it is; number and bytes are bounded, and the room that someone
takes from others is never that of a swarm with peers in it.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from protocol.statements.swarm import Swarm, check_successor, open_statement
from rendezvous.server.address_quota import EXEMPT, AddressQuota
from rendezvous.server.directory import Change, StatementRemoved, StatementStored
from rendezvous.server.refusal import RefusalError

_EVICTION_TRIES = 16


@dataclass(slots=True)
class _Kept:
    raw: bytes
    prefix: str


class StatementBook:
    """Statements by swarm id, the one that was used least recently first."""

    def __init__(self, *, most: int, most_bytes: int, most_per_prefix: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._quota = AddressQuota(most_per_prefix)
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._total_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def restore(self, swarm: bytes, raw: bytes) -> None:
        """Keep what a store kept."""
        self._keep(swarm, _Kept(raw, EXEMPT))

    def fetch(self, swarm: bytes) -> bytes | None:
        """The statement of ``swarm``."""
        kept = self._kept.get(swarm)
        if kept is None:
            return None
        self._kept.move_to_end(swarm)
        return kept.raw

    def publish(
        self, raw: bytes, *, prefix: str, now_ms: int, in_use: Callable[[bytes], bool]
    ) -> list[Change]:
        """Keep ``raw`` if it is the highest version; the changes that this makes.

        ``in_use(swarm)`` tells whether a statement must stay. Raises :class:`RemoteProtocolError`
        for what does not verify, and :class:`RefusalError` for what is old or has no room.
        """
        new = open_statement(raw, swarm_id=None, now_ms=now_ms)
        kept = self._kept.get(new.swarm_id)
        if kept is None:
            return self._publish_first(new, prefix, in_use)
        if kept.raw == raw:
            self._kept.move_to_end(new.swarm_id)
            return []
        old = open_statement(kept.raw, swarm_id=new.swarm_id, now_ms=now_ms)
        if not check_successor(old, new):
            raise RefusalError(
                "stale",
                f"statement version above {old.statement.version} expected,"
                f" got {new.statement.version}",
            )
        self._kept.move_to_end(new.swarm_id)
        changes = self._make_room(0, len(raw) - len(kept.raw), in_use)
        self._keep(new.swarm_id, _Kept(raw, kept.prefix))
        return [*changes, StatementStored(new.swarm_id, raw)]

    def _publish_first(
        self, new: Swarm, prefix: str, in_use: Callable[[bytes], bool]
    ) -> list[Change]:
        if not self._quota.has_room(prefix):
            raise RefusalError("quota", f"too many swarms were published from {prefix}")
        changes = self._make_room(1, len(new.raw), in_use)
        self._keep(new.swarm_id, _Kept(new.raw, prefix))
        return [*changes, StatementStored(new.swarm_id, new.raw)]

    def _make_room(
        self, more: int, more_bytes: int, in_use: Callable[[bytes], bool]
    ) -> list[Change]:
        changes: list[Change] = []
        for _ in range(_EVICTION_TRIES):
            fits = len(self._kept) + more <= self._most
            if fits and self._total_bytes + more_bytes <= self._most_bytes:
                break
            swarm = next(iter(self._kept))
            if in_use(swarm):
                self._kept.move_to_end(swarm)
            else:
                self._forget(swarm)
                changes.append(StatementRemoved(swarm))
        else:
            raise RefusalError("quota", f"no room: {len(self._kept)} swarms are published here")
        return changes

    def _keep(self, swarm: bytes, kept: _Kept) -> None:
        if swarm in self._kept:
            self._forget(swarm)
        self._kept[swarm] = kept
        self._quota.add(kept.prefix)
        self._total_bytes += len(kept.raw)

    def _forget(self, swarm: bytes) -> None:
        kept = self._kept.pop(swarm)
        self._quota.remove(kept.prefix)
        self._total_bytes -= len(kept.raw)
