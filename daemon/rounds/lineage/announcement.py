"""Who has been told where this peer stands. No I/O: the caller brings the time, and sends."""

import math

import msgspec

from protocol.identity import PeerId
from protocol.peers.peer_messages import Standing

REPEAT_S = 30.0
"""A standing goes to everybody again so often. A session loses nothing; but in a peer a fault may
end the part that keeps standings."""


class Announcement:
    """What this peer said last of where it stands, and whose sessions took it.

    In gossip a round more is said to those whom it concerns, and to the others with the next
    repetition: what it costs grows with the partners, and not with the swarm.

    >>> said = Standing(7, bytes(32), contributors=3, started=True, ready=True, vouch=b"signed")
    >>> announcement = Announcement()
    >>> announcement.begin(said, now=0.0)
    >>> announcement.told |= {PeerId("ann"), PeerId("bob")}
    >>> next_round = msgspec.structs.replace(said, round=8)
    >>> announcement.begin(next_round, now=2.0, concerned=frozenset({PeerId("ann")}))
    >>> announcement.told
    frozenset({'bob'})
    >>> announcement.begin(msgspec.structs.replace(next_round, ready=False), now=2.5)
    >>> announcement.told
    frozenset()
    """

    def __init__(self) -> None:
        self.told: frozenset[PeerId] = frozenset()
        """Who need not be told: the caller adds those that it has told, and takes those out that
        were silent since."""
        self._said: Standing | None = None
        self._said_to_all_at = -math.inf

    def begin(
        self, standing: Standing, now: float, concerned: frozenset[PeerId] | None = None
    ) -> None:
        """Where this peer stands now. ``concerned``: whom another round concerns; None: all."""
        is_due = now >= self._said_to_all_at + REPEAT_S
        said, self._said = self._said, standing
        if said == standing and not is_due:
            return
        is_small = said is not None and _is_a_round_on(said, standing) and not is_due
        if is_small and concerned is not None:
            self.told -= concerned
        else:
            self.told, self._said_to_all_at = frozenset(), now


def _is_a_round_on(said: Standing, standing: Standing) -> bool:
    """Whether nothing but the round has changed, by one."""
    here = msgspec.structs.replace(
        said,
        round=said.round + 1,
        base=standing.base,
        contributors=standing.contributors,
        vouch=standing.vouch,
    )
    return here == standing
