"""This peer's own votes, on disk before they are sent.

A peer that was killed in mid-round, or that tries a round again, finds what it has said in it and
repeats that, instead of saying something else. Where that cannot be known, because the file is
damaged, or not be stored, because the disk is full, it does not vote: it can still adopt what the
others decide (speaking.py).
"""

import logging
from pathlib import Path
from typing import Annotated, Protocol

from msgspec import Meta

from daemon.host.damaged import put_aside
from protocol.codec import MAX_MESSAGE_BYTES, Message, decode, encode
from protocol.errors import RemoteProtocolError
from protocol.peers.agreement_messages import Ballot, Digest, Prepared, Round
from transport.record_file import DamagedRecordError, RecordFile

KEPT_ROUNDS = 4
"""A peer whose worker comes back with an older state goes through the last rounds again."""

_log = logging.getLogger("p2pd.training")


class OwnVotes(Message):
    """What this peer said in the last ballot that it took part in."""

    round: Round
    base: Digest
    roster: Digest
    """SHA-256 over the roster's keys in the order in which it leads: with another roster, or order,
    the votes of before are not repeated, and no ballot of theirs is used again."""
    ballot: Ballot
    envelopes: Annotated[tuple[bytes, ...], Meta(max_length=4)]
    prepared: Prepared | None


class _Stored(Message):
    votes: tuple[OwnVotes, ...]


class VotesUnknownError(OSError):
    """Nobody can know how this peer has voted in the round."""


class VoteBook(Protocol):
    """Keeps votes."""

    def find(self, round_number: int, base: bytes) -> OwnVotes | None:
        """The votes in that round; None without any. Raises :class:`OSError` when nobody can
        know."""

    def keep(self, votes: OwnVotes) -> None:
        """Store; on disk once this returns. Raises :class:`OSError`."""


class VoteFile:
    """The votes in a file of one state directory.

    >>> import tempfile
    >>> said = OwnVotes(7, bytes(32), roster=bytes(32), ballot=0, envelopes=(), prepared=None)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     VoteFile(Path(directory, "votes")).keep(said)
    ...     VoteFile(Path(directory, "votes")).find(7, bytes(32)) == said  # after a restart
    True
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = RecordFile(path)
        self._votes: tuple[OwnVotes, ...] = ()
        self._is_damaged = False
        self._damaged_at: tuple[int, bytes] | None = None
        self._read()

    def find(self, round_number: int, base: bytes) -> OwnVotes | None:
        """What was said in that round. Raises :class:`VotesUnknownError` for the first round after
        a start with a damaged file: it may be the one that the file was about."""
        if self._is_damaged and self._damaged_at in (None, (round_number, base)):
            self._damaged_at = (round_number, base)
            raise VotesUnknownError(f"{self._path} was damaged: round {round_number} is sat out")
        at = (round_number, base)
        return next((votes for votes in self._votes if (votes.round, votes.base) == at), None)

    def keep(self, votes: OwnVotes) -> None:
        """Store; on disk once this returns. Raises :class:`OSError`."""
        at = (votes.round, votes.base)
        others = tuple(one for one in self._votes if (one.round, one.base) != at)
        kept = (*others, votes)[-KEPT_ROUNDS:]
        self._file.write(encode(_Stored(votes=kept)))
        self._votes = kept

    def _read(self) -> None:
        try:
            data = self._file.read()
            if data is None:
                return
            self._votes = decode(data, _Stored, max_bytes=4 * KEPT_ROUNDS * MAX_MESSAGE_BYTES).votes
        except OSError as error:
            self._is_damaged = True
            _log.warning("%s cannot be read (%s): the next round is sat out", self._path, error)
        except (RemoteProtocolError, DamagedRecordError) as error:
            self._is_damaged = True
            put_aside(self._path, error, "the next round is sat out")
