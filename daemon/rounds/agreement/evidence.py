"""Keeps contradicting messages in a file, and their signers out of quorums.

Two contradicting votes of one signer come from a liar, or from two daemons with one identity (a
state directory that was copied, a machine that was cloned). Either way its votes prove nothing. It
stays out for :data:`PENALTY_ROUNDS`; its updates count as ever.
"""

import logging
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from daemon.host.damaged import put_aside
from protocol.codec import Message, decode, encode
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId, peer_id_of, public_key_of
from protocol.peers.agreement_messages import Key, Round
from transport.atomic_file import write_atomically

MAX_KEPT = 64
"""Contradictions, one a signer; the oldest go first."""
MAX_ENVELOPE_BYTES = 16_384
"""A longer envelope is kept by its beginning, which names its signer and what it is about."""
PENALTY_ROUNDS = 1000

_log = logging.getLogger("p2pd.agreement")

_Part = Annotated[bytes, Meta(max_length=MAX_ENVELOPE_BYTES)]


class Kept(Message):
    """One contradiction."""

    signer: Key
    round: Round
    first: _Part
    second: _Part


class _Stored(Message):
    kept: Annotated[tuple[Kept, ...], Meta(max_length=MAX_KEPT)]


class EvidenceFile:
    """The contradictions that one peer has seen.

    >>> import tempfile
    >>> from protocol.identity import Identity
    >>> me, eve = (Identity.generate().peer_id for _ in range(2))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     evidence = EvidenceFile(me, Path(directory, "evidence"))
    ...     evidence.add(eve, 7, b"one vote", b"another vote")
    ...     [eve in evidence.offenders(number) for number in (7, 1006, 1007)]
    True
    [True, True, False]
    """

    def __init__(self, me: PeerId, path: Path) -> None:
        self.path = path
        self.has_twin = False
        """Whether another daemon speaks with this peer's own identity."""
        self._me = me
        self._kept: dict[PeerId, Kept] = {}
        self._read()

    def add(self, signer: PeerId, round_number: int, first: bytes, second: bytes) -> bool:
        """Keep what ``signer`` said twice in one round; True if it is the first time."""
        if signer == self._me:
            is_news, self.has_twin = not self.has_twin, True
            return is_news
        if signer in self._kept and round_number < self._kept[signer].round + PENALTY_ROUNDS:
            return False
        self._kept.pop(signer, None)
        self._kept[signer] = Kept(
            signer=public_key_of(signer),
            round=round_number,
            first=first[:MAX_ENVELOPE_BYTES],
            second=second[:MAX_ENVELOPE_BYTES],
        )
        while len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        try:
            write_atomically(self.path, encode(_Stored(kept=tuple(self._kept.values()))))
        except OSError as error:
            _log.warning("evidence against %s is not stored: %s", signer, error)
        return True

    def offenders(self, round_number: int) -> frozenset[PeerId]:
        """The peers whose votes do not count in that round."""
        return frozenset(
            peer
            for peer, kept in self._kept.items()
            if kept.round <= round_number < kept.round + PENALTY_ROUNDS
        )

    def _read(self) -> None:
        try:
            stored = decode(self.path.read_bytes(), _Stored, max_bytes=4 << 20)
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("%s cannot be read (%s): it is begun anew", self.path, error)
            return
        except RemoteProtocolError as error:
            put_aside(self.path, error, "who contradicted itself before is not known any more")
            return
        self._kept = {peer_id_of(kept.signer): kept for kept in stored.kept}
