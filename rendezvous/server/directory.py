"""What a rendezvous knows and must not forget, and the changes to it.

The registry says what changed, a store keeps it; see :mod:`rendezvous.server.store`. Leases, routes
and rates are not among it: they belong to one process's connections and are taken anew.
"""

from dataclasses import dataclass, field

import msgspec

from protocol.codec import Message


class StoredRecord(Message):
    """A peer's record and what the registry read from it when it verified it.

    It is not verified again when it is loaded: who can write the store can lie about who is there,
    but not about who they are, since the peers verify each other's records themselves.
    """

    swarm: bytes
    peer: bytes
    curve_key: bytes
    sequence: int
    expires_ms: int
    prefix: str
    raw: bytes


class RecordStored(msgspec.Struct, frozen=True):
    """A peer came, or has a new record."""

    record: StoredRecord
    is_news: bool = True
    """It came, or is somewhere else; False: where it was, with other words. A peer writes several
    records while it finds out where it is, and a log that told of each would tell of little else.
    """


class RecordRemoved(msgspec.Struct, frozen=True):
    """A peer is gone."""

    swarm: bytes
    peer: bytes
    reason: str


class RecordsRenewed(msgspec.Struct, frozen=True):
    """Peers that were there are still there; of interest to others that share the store, alone."""

    names: tuple[bytes, ...]
    """Of each, the swarm's id and its public identity key, one after the other."""


class StatementStored(msgspec.Struct, frozen=True):
    """A swarm was published, or has a new statement."""

    swarm: bytes
    raw: bytes


class StatementRemoved(msgspec.Struct, frozen=True):
    """A swarm's statement made room for others."""

    swarm: bytes


Change = RecordStored | RecordsRenewed | RecordRemoved | StatementStored | StatementRemoved


@dataclass(slots=True)
class Directory:
    """The sum of all changes."""

    statements: dict[bytes, bytes] = field(default_factory=dict)
    """Statements by swarm id, the least recently used first."""
    records: dict[tuple[bytes, bytes], StoredRecord] = field(default_factory=dict)
    """Records by swarm id and public identity key."""

    def apply(self, change: Change) -> None:
        """Take ``change`` in."""
        match change:
            case RecordStored(record):
                self.records[record.swarm, record.peer] = record
            case RecordsRenewed():
                pass
            case RecordRemoved(swarm, peer):
                self.records.pop((swarm, peer), None)
            case StatementStored(swarm, raw):
                self.statements.pop(swarm, None)
                self.statements[swarm] = raw
            case StatementRemoved(swarm):
                self.statements.pop(swarm, None)
