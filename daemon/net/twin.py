"""Notices when another daemon has this peer's identity: a copied state directory, a cloned machine.

The two would reset each other's sessions for ever. So each process draws a number, its *instance*,
that its record names. Of two instances of one identity the one that started later goes on, and the
other one stands down: it lets its sessions go, looks for nobody, and says what to do.

Invariants:

- Nobody is believed but this identity itself, by its signature.
- A record that a process left behind makes nobody stand down: each restart finds one. Only a sign
  of life does, which is a signal or a newer record.

This is how each hears of the other. Both ask the rendezvous for the record of their own identity.
The one that finds another instance's record sends a signal to that identity. The rendezvous passes
it on to the instance that has the lease; that one signs its record anew, and the first one sees
it.
"""

import enum
from dataclasses import dataclass

from protocol.statements.peer_record import VerifiedRecord

REMEMBERED_S = 600.0
"""How long after its last sign of life another daemon is still reported."""


class Twin(enum.Enum):
    """What is known of another daemon with this identity."""

    NONE = "none"
    EARLIER = "earlier"
    """It started before this one, and stands down."""
    LATER = "later"
    """It started after this one: this one stands down."""


@dataclass(slots=True)
class _Left:
    """A record of another instance as it was first found."""

    instance: bytes
    sequence: int


class TwinWatch:
    """What this process knows of others with its identity. No I/O.

    >>> from types import SimpleNamespace as Shown
    >>> def record(instance, sequence):
    ...     return Shown(record=Shown(instance=instance), sequence=sequence)
    >>> watch = TwinWatch(b"mine", started_sequence=100)
    >>> watch.note_found(record(b"mine", 101), now=0.0)
    False
    >>> watch.note_signal(record(b"other", 200), now=1.0), watch.stands_down()
    (True, True)
    """

    def __init__(self, instance: bytes, started_sequence: int) -> None:
        """``started_sequence``: the first sequence number of this process's records."""
        self._instance = instance
        self._started_sequence = started_sequence
        self._found: _Left | None = None
        self._heard_at: float | None = None
        self._is_later = False

    def note_found(self, record: VerifiedRecord, now: float) -> bool:
        """A rendezvous has ``record`` for this identity. True: it is another instance's, which is
        to be told of this one."""
        if record.record.instance == self._instance:
            return False
        found = self._found
        if found is None or found.instance != record.record.instance:
            self._found = _Left(record.record.instance, record.sequence)
        elif record.sequence > found.sequence:
            found.sequence = record.sequence
            self._note_alive(record, now)
        return True

    def note_signal(self, record: VerifiedRecord, now: float) -> bool:
        """A signal of this identity came, made within the last half minute. True: it is another
        instance's, which has yet to see a sign of life of this one."""
        if record.record.instance == self._instance:
            return False
        self._note_alive(record, now)
        return True

    def stands_down(self) -> bool:
        """Whether this process is the one that gives way. For good: only a person can tell which of
        the two is to stay."""
        return self._is_later

    def twin(self, now: float) -> Twin:
        """Whether there is another one, and which of the two goes on."""
        if self._is_later:
            return Twin.LATER
        if self._heard_at is None or now >= self._heard_at + REMEMBERED_S:
            return Twin.NONE
        return Twin.EARLIER

    def _note_alive(self, record: VerifiedRecord, now: float) -> None:
        self._heard_at = now
        if record.sequence > self._started_sequence:
            self._is_later = True
