"""The states that this peer's came from, on disk.

A peer that was away may come back on one of them. A peer that restarted in the meantime and had
forgotten them would think that the other is on another line, and might give up its own newer rounds
for it.

A record of fixed size a round, appended; it takes the place of all records of its round and of
later ones, which belonged to a line that was left. Each ends with a checksum: a record that does
not pass is no state, and the file is put aside; those that pass are still believed. A crash can cut
off the tail: then only the last rounds are forgotten, and their certificates tell of those
(daemon/rounds/lineage/certificate_file.py).
"""

import hashlib
import logging
import os
import struct
from collections import OrderedDict
from pathlib import Path

from daemon.host.damaged import put_aside
from daemon.rounds.lineage.position import MAX_HISTORY, Position
from protocol.merkle import DIGEST_BYTES
from protocol.peers.agreement_messages import Certificate
from transport.atomic_file import write_atomically

_STATE = struct.Struct(f"!Q{DIGEST_BYTES}s")
_CHECK_BYTES = 8
_RECORD_BYTES = _STATE.size + _CHECK_BYTES
_MAX_RECORDS = 2 * MAX_HISTORY
"""Past these the file is written anew with the last MAX_HISTORY."""

_log = logging.getLogger("p2pd.training")


class HistoryFile:
    """The file of one state directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._positions: OrderedDict[int, bytes] = OrderedDict()
        self._record_count = 0
        self._is_failing = False
        self._read()

    def positions(self) -> tuple[Position, ...]:
        """The states, the oldest first."""
        return tuple(Position(number, base) for number, base in self._positions.items())

    def keep(self, certificate: Certificate) -> None:
        """Note the state that a round started from, by how it ended. A disk that is full costs a
        restart its memory, not the training."""
        if certificate.outcome.updates:  # A start's has none, and makes no new state.
            self._add(Position(certificate.round - 1, certificate.base))

    def _add(self, position: Position) -> None:
        if self._positions.get(position.round) == position.base:
            return
        self._note(position)
        try:
            if self._record_count >= _MAX_RECORDS:
                self._rewrite()
            else:
                self._append(_record(position.round, position.base))
                self._record_count += 1
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                _log.warning("the states of before are not stored any more: %s", error)
            self._is_failing = True
            self._record_count = _MAX_RECORDS  # Part of a record may have been written.

    def _append(self, record: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        # 0600 as all that is in the state directory.
        with open(os.open(self._path, flags, 0o600), "ab") as file:
            file.write(record)

    def _note(self, position: Position) -> None:
        while self._positions and next(reversed(self._positions)) >= position.round:
            self._positions.popitem()
        self._positions[position.round] = position.base
        while len(self._positions) > MAX_HISTORY:
            self._positions.popitem(last=False)

    def _read(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("%s cannot be read (%s): states of before are unknown", self._path, error)
            return
        whole = len(data) - len(data) % _RECORD_BYTES
        records = [data[at : at + _RECORD_BYTES] for at in range(0, whole, _RECORD_BYTES)]
        found = [_STATE.unpack(record[: _STATE.size]) for record in records]
        sound = [
            state for state, record in zip(found, records, strict=True) if _record(*state) == record
        ]
        for number, base in sound:
            self._note(Position(number, base))
        self._record_count = len(records)
        if whole < len(data):
            self._record_count = _MAX_RECORDS  # A record behind it would not be found again.
        if len(sound) < len(records):
            self._record_count = _MAX_RECORDS  # The next record brings those that pass along.
            reason = f"{len(records) - len(sound)} of its records do not pass"
            put_aside(self._path, reason, "the states in them are unknown")

    def _rewrite(self) -> None:
        records = [_record(number, base) for number, base in self._positions.items()]
        write_atomically(self._path, b"".join(records))
        self._record_count = len(records)


def _record(round_number: int, base: bytes) -> bytes:
    """A state with its checksum."""
    state = _STATE.pack(round_number, base)
    return state + hashlib.blake2b(state, digest_size=_CHECK_BYTES).digest()
