"""The states that this peer's state came from, in memory and in two files of its state directory.

When to give it up for another one, daemon/rounds/lineage/succession.py says.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, Self

from daemon.rounds.agreement.certificates import next_roster
from daemon.rounds.lineage.certificate_file import CertificateFile
from daemon.rounds.lineage.history_file import HistoryFile
from daemon.rounds.lineage.position import MAX_HISTORY, Position
from protocol.identity import PeerId, peer_id_of
from protocol.peers.agreement_messages import Certificate

CERTIFICATE_FILE = "certificates"
HISTORY_FILE = "lineage"


def contributors_of(certificate: Certificate) -> int:
    """How many peers stand behind a certificate: contributors, as far as votes support them."""
    claimed = len(certificate.outcome.updates) or len(certificate.outcome.newcomers)
    return min(claimed, 2 * len(certificate.accepts))


class LineageFile(Protocol):
    """What a restart finds (certificate_file.py, history_file.py)."""

    def keep(self, certificate: Certificate) -> None:
        """Store what a restart needs of how a round ended."""


class Lineage:
    """The states that this peer's came from, the present one last.

    >>> lineage = Lineage(Position(0, b"root 0"), None)
    >>> lineage.append(Position(1, b"root 1"), None)
    >>> lineage.knows(0, b"root 0"), lineage.knows(1, b"another root")
    (True, False)
    """

    def __init__(
        self,
        position: Position,
        certificate: Certificate | None,
        before: Iterable[Position] = (),
        files: Sequence[LineageFile] = (),
    ) -> None:
        """``certificate``: how ``position``'s round ended; None for round 0 before any start.
        ``before``: earlier states, the oldest first. ``files``: where it is stored."""
        self._files = files
        self._history: OrderedDict[int, bytes] = OrderedDict(
            (one.round, one.base) for one in before if one.round < position.round
        )
        self._certificates: OrderedDict[int, Certificate] = OrderedDict()
        self._history[position.round] = position.base
        self.position = position
        self.certificate = certificate
        self._roster: tuple[Certificate | None, frozenset[PeerId]] = (None, frozenset())

    @classmethod
    def load(cls, directory: Path, position: Position) -> Self:
        """The lineage of ``position``, as far as a peer's state directory tells."""
        certificates = CertificateFile(directory / CERTIFICATE_FILE)
        history = HistoryFile(directory / HISTORY_FILE)
        return cls(
            position,
            certificates.find(position.round),
            history.positions(),
            files=(certificates, history),
        )

    @property
    def contributors(self) -> int:
        """How many contributed to the present state's round; 0 before any."""
        return 0 if self.certificate is None else contributors_of(self.certificate)

    @property
    def roster(self) -> frozenset[PeerId]:
        """Who is expected in the next round."""
        certificate, roster = self._roster
        if certificate is not self.certificate:  # Each message asks, and few rounds change it.
            certificate = self.certificate
            roster = frozenset() if certificate is None else next_roster(certificate.outcome)
            self._roster = (certificate, roster)
        return roster

    @property
    def last_to_lead(self) -> frozenset[PeerId]:
        """Who leads last in the next round."""
        named = () if self.certificate is None else self.certificate.outcome.last_to_lead
        return frozenset(map(peer_id_of, named))

    def start(self, certificate: Certificate) -> None:
        """The swarm starts from the present state with the certificate's roster."""
        self.keep(certificate)
        self.certificate = certificate

    def keep(self, certificate: Certificate) -> None:
        """Store how a round was decided, before its updates are averaged: whichever checkpoint a
        crash leaves, a restart finds its certificate."""
        for file in self._files:
            file.keep(certificate)

    def append(self, position: Position, certificate: Certificate | None) -> None:
        """The next round is complete; in gossip there is no certificate."""
        self._history[position.round] = position.base
        if certificate is not None:
            self._certificates[position.round] = certificate
        while len(self._history) > MAX_HISTORY:
            self._history.popitem(last=False)
        while len(self._certificates) > 2:
            self._certificates.popitem(last=False)
        self.position = position
        self.certificate = certificate

    def replace(self, position: Position, certificate: Certificate | None) -> None:
        """Another line's state was taken; all behind the common part is no longer this peer's."""
        self._leave(position.round)
        self._certificates.clear()
        self.append(position, certificate)

    def reset(self, position: Position) -> None:
        """Begin anew from a state of this line of which it is not known how it came about."""
        self._leave(position.round)
        self._certificates.clear()
        self._history[position.round] = position.base
        self.position = position
        self.certificate = None

    def _leave(self, round_number: int) -> None:
        """Forget that round and all after it: they are of a line that this peer has left."""
        for number in [number for number in self._history if number >= round_number]:
            del self._history[number]

    def base_of(self, round_number: int) -> bytes | None:
        """The state of that round that the present one came from; None: not known."""
        return self._history.get(round_number)

    def knows(self, round_number: int, base: bytes) -> bool:
        """Whether the present state descends from that one, or is it."""
        return self._history.get(round_number) == base

    def contradicts(self, round_number: int, base: bytes) -> bool:
        """Whether the present state is known to come from another one of that round."""
        return self._history.get(round_number, base) != base

    def certificate_of(self, round_number: int) -> Certificate | None:
        """How a recent round ended, if it is still remembered."""
        return self._certificates.get(round_number)
