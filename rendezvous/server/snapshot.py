"""A rendezvous' directory as bytes, with a digest that tells a damaged file from a whole one."""

from hashlib import sha256

from protocol.codec import Message, decode, encode
from protocol.errors import RemoteProtocolError
from rendezvous.server.directory import Directory, StoredRecord

MAX_SNAPSHOT_BYTES = 512 << 20

_MAGIC = b"p2pd rendezvous snapshot 1\n"
_DIGEST_BYTES = 32
_HEADER_BYTES = len(_MAGIC) + _DIGEST_BYTES


class SnapshotError(ValueError):
    """The file is no snapshot, or not as it was written."""


class _Snapshot(Message):
    statements: tuple[tuple[bytes, bytes], ...]
    records: tuple[StoredRecord, ...]


def encode_snapshot(directory: Directory) -> bytes:
    """The bytes of a snapshot file."""
    body = encode(
        _Snapshot(
            statements=tuple(directory.statements.items()),
            records=tuple(directory.records.values()),
        )
    )
    return _MAGIC + sha256(body).digest() + body


def decode_snapshot(data: bytes) -> Directory:
    """The directory in ``data``. Raises :class:`SnapshotError`."""
    if not data.startswith(_MAGIC):
        raise SnapshotError("not a snapshot of this version")
    body = data[_HEADER_BYTES:]
    if sha256(body).digest() != data[len(_MAGIC) : _HEADER_BYTES]:
        raise SnapshotError("cut off or changed since it was written")
    try:
        snapshot = decode(body, _Snapshot, max_bytes=MAX_SNAPSHOT_BYTES)
    except RemoteProtocolError as error:
        raise SnapshotError(str(error)) from error
    return Directory(
        statements=dict(snapshot.statements),
        records={(record.swarm, record.peer): record for record in snapshot.records},
    )
