"""What a peer knows of one update: whose it is, what is said of it, and how far it has come here.

>>> offer = UpdateOffer(header=b"signed", leaves=(), proof=b"", follows=3)
>>> plain(offer).follows
0
"""

import enum
from dataclasses import dataclass
from pathlib import Path

import msgspec

from protocol.identity import PeerId
from protocol.peers.agreement_messages import UpdateRef
from protocol.peers.peer_messages import UpdateHeader, UpdateOffer


class UpdateState(enum.Enum):
    """How far an update has come here."""

    FETCHING = "fetching"
    CHECKING = "checking"
    HELD = "held"
    REFUSED = "refused"


Slot = tuple[PeerId, int, bool]
"""Signer, part, and whether it is a reduced part: under each there is one update a round."""


@dataclass(slots=True)
class KnownUpdate:
    """An update that somebody offered (or this peer made) and whose header verified.

    Example (daemon/rounds/updates.py)::

        update = self._updates[ref] = KnownUpdate(ref, message.signer, header, plain(offer))
    """

    ref: UpdateRef
    signer: PeerId
    header: UpdateHeader
    offer: UpdateOffer
    """It says nothing of what followed it: it is kept, and passed on."""
    path: Path | None = None
    state: UpdateState = UpdateState.FETCHING

    @property
    def slot(self) -> Slot:
        """Its place in the round."""
        return (self.signer, self.header.part, self.header.reduced)


def plain(offer: UpdateOffer) -> UpdateOffer:
    """``offer`` without a word on what follows it."""
    return msgspec.structs.replace(offer, follows=0)
