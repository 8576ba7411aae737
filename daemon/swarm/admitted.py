"""Keeps on disk which peers this one met, and by which invite they came: an invite that is over
puts out nobody who is in.

A record of fixed size for each meeting, appended and not synced: a crash of the machine costs the
last seconds' new acquaintances, and they show their invites anew. The last record of a peer and
token counts. Each has a check sum: a damaged one lets nobody in.
"""

import logging
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

from daemon.host.damaged import put_aside
from protocol.identity import KEY_BYTES, PeerId, peer_id_of, public_key_of
from protocol.statements.admission import MAX_MET, Acquaintance
from transport.atomic_file import write_atomically

_HEADER = b"p2pd met 1\n"
_RECORD = struct.Struct(f"!{KEY_BYTES}s{KEY_BYTES}sQQL")
_CHECKED_BYTES = _RECORD.size - 4
MAX_RECORDS = 4 * MAX_MET
"""Past these the file is written anew, with one record for each acquaintance."""

_log = logging.getLogger("p2pd.peer")


class AdmittedFile:
    """The file of one state directory. Implements :class:`protocol.statements.admission.Memory`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[bytes, PeerId], Acquaintance] = {}
        self._record_count = MAX_RECORDS
        """When the file has so many records, it is written anew with the next one."""
        self.trouble = ""
        """Why the last ones are not stored; empty: they are."""

    def read(self) -> list[Acquaintance]:
        """The peers that are remembered, without those that do not pass; for readers only."""
        return list(_latest(_read(self._path)[0]).values())

    def open(self) -> list[Acquaintance]:
        """Read the file for the peer itself, which goes on writing it: a damaged one is put
        aside."""
        found, damage = _read(self._path)
        if damage:
            put_aside(self._path, damage, "peers that are left out show their invites anew")
        self._known = _latest(found)
        if not damage and self._path.exists():
            self._record_count = len(found)
        self.save()
        return list(self._known.values())

    def add(self, one: Acquaintance) -> None:
        """See :class:`protocol.statements.admission.Memory`."""
        self._known[(one.token, one.peer)] = one
        if self._record_count >= MAX_RECORDS:
            self.save()
            return
        try:
            _append(self._path, _pack(one))
            self._record_count += 1
        except OSError as error:
            self._note_failure(error)

    def forget(self, one: Acquaintance) -> None:
        """See :class:`protocol.statements.admission.Memory`: the next time that all is written
        anew."""
        self._known.pop((one.token, one.peer), None)

    def save(self) -> None:
        """Write all anew, if that is due; try again what failed."""
        if self._record_count < MAX_RECORDS:
            return
        try:
            write_atomically(self._path, _HEADER + b"".join(map(_pack, self._known.values())))
        except OSError as error:
            self._note_failure(error)
        else:
            self._record_count = len(self._known)
            self.trouble = ""

    def _note_failure(self, error: OSError) -> None:
        self._record_count = MAX_RECORDS  # Part of a record may have been written.
        if not self.trouble:
            _log.warning("who was let in is not stored: %s", error)
        self.trouble = error.strerror or str(error)


def _read(path: Path) -> tuple[list[Acquaintance], str]:
    """All records in their order, and what is wrong with the file (empty: nothing)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], ""
    except OSError as error:
        return [], str(error)
    if not data.startswith(_HEADER):
        return [], "it does not begin as such a file does"
    body = data[len(_HEADER) :]
    whole = len(body) - len(body) % _RECORD.size
    found = []
    damage = "" if whole == len(body) else "its end is cut off"
    for token, peer, first_met_ms, last_seen_ms, checksum in _RECORD.iter_unpack(body[:whole]):
        one = Acquaintance(token, peer_id_of(peer), first_met_ms, last_seen_ms)
        if _checksum(one) == checksum and first_met_ms <= last_seen_ms:
            found.append(one)
        else:
            damage = "a check sum does not fit"
    return found, damage


def _latest(records: Iterable[Acquaintance]) -> dict[tuple[bytes, PeerId], Acquaintance]:
    return {(one.token, one.peer): one for one in records}


def _fields(one: Acquaintance) -> tuple[bytes, bytes, int, int]:
    return one.token, public_key_of(one.peer), one.first_met_ms, one.last_seen_ms


def _checksum(one: Acquaintance) -> int:
    return zlib.crc32(_RECORD.pack(*_fields(one), 0)[:_CHECKED_BYTES])


def _pack(one: Acquaintance) -> bytes:
    return _RECORD.pack(*_fields(one), _checksum(one))


def _append(path: Path, record: bytes) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
    with open(os.open(path, flags), "ab") as file:
        file.write(record)
